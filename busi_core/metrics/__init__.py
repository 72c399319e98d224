"""How well a model reads: pure functions from predictions and truth to numbers, as `evaluation.py` puts them together.

* `segmentation`    two masks -> overlap counts -> Dice, IoU, precision, recall; distance between borders (HD95)
* `size`            a mask -> longest diameter, the extent across it, area
* `classification`  labels -> confusion matrix -> accuracy, macro-F1; scores -> AUC, curve, operating points
* `calibration`     logits -> temperature -> probabilities; how far confidence is from being right
* `bootstrap`       any of these over scans -> an interval

Everywhere the prediction comes first and the truth second, and what is not defined is NaN, never 0 or 1.
"""
