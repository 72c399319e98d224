"""The gate: rules written beforehand -> a verdict on a candidate -> into service, and back.

* `protocol`   promotion.toml -> the rules
* `locked`     the locked test set, unchanged
* `leaks`      copies of locked scans among those that taught a version
* `figures`    two readings of the same scans -> gains with intervals
* `verdict`    gains and rules -> better, non-inferior, worse, insufficient evidence, refused
* `judge`      two versions -> a verdict, through the front door
* `judging`    the same in a process of its own, for a page
* `promote`    a favourable verdict -> in service; an earlier version -> back
* `record`     what is written down about a promotion
* `overview`   every version as a row
"""
