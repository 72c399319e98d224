"""What a model version knows of its limits, measured on scans that it never saw -> weights/<v>/assessment.json.

* `assess`      all of it for one version, by `busi evaluate --all`; the model card prints it
* `class_sets`  evaluation reports + limits -> how often the sets of classes hold the truth, class by class
* `readings`    scans read -> how many are called unlike or get no answer; how right the class is in doubt and
                elsewhere; how far marks drawn in move it; how much the area moves over six readings
* `heatmaps`    heat maps -> deletion and insertion against random, sanity check, evidence inside the lesion
* `counting`    values of scans -> a figure with its interval; images of one case are drawn together
* `figures`     the figures as a file and as a table
"""
