"""Histograms of Prometheus: what lies between two readings, and its quantiles."""

import re


def read(text, name):
    """Counts up to each upper bound, over all label sets of a metric; none where the text has no such metric."""
    found = {}
    for labels, count in re.findall(rf"^{name}_bucket\{{(.*)\}} (\S+)$", text, re.MULTILINE):
        bound = re.search(r'\ble="([^"]+)"', labels)
        if bound:
            le = float(bound[1].replace("+Inf", "inf"))
            found[le] = found.get(le, 0) + float(count)
    return found or None


def difference(before, after):
    """What came in between two readings."""
    return {bound: count - before.get(bound, 0) for bound, count in after.items()}


def quantile(counts, share):
    """The upper bound of the bucket that the quantile lies in; none if there is nothing."""
    bounds = sorted(counts)
    total = counts[bounds[-1]] if bounds else 0
    if total <= 0:
        return None
    return next(bound for bound in bounds if counts[bound] >= share * total)
