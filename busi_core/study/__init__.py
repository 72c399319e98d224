"""The published systems on honest splits: what a leak is worth, and every printed figure beside ours.

* `leak`        one random split of files, twice: with copies of the test scans in training, and without
* `figures`     scored scans -> the figures that papers print, with intervals
* `budget`      how large, how long, and a clock that outlives a kill
* `runs`        one training run, resumed, scored, and kept as one file
* `tissue`      the recipe that reads stained tissue and no scans
* `reproduce`   all runs in their order -> docs/reproduction.json
* `document`    reproduction.json -> docs/reproduction.md
"""
