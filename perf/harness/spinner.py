#!/usr/bin/env python3
"""A loop that does nothing but read the clock, on one CPU: what gaps the machine alone makes.

Gaps are split as a worker splits its own: by the thread's CPU time, read after a gap above 20 us and every millisecond.
"""

import gc
import json
import os
import sys
import time

LONG_NANOSECONDS = 20_000
READING_NANOSECONDS = 1_000_000


def spin(seconds):
    """Gaps of a loop that runs for so long; gives what was seen of them, in microseconds."""
    gc.disable()
    wall, cpu = time.perf_counter_ns, time.thread_time_ns
    long_gaps, turns = [], 0
    last = read_at = wall()
    cpu_then, end = cpu(), last + int(seconds * 1e9)
    while last < end:
        now = wall()
        gap, last, turns = now - last, now, turns + 1
        if gap > LONG_NANOSECONDS or now - read_at > READING_NANOSECONDS:
            cpu_now = cpu()
            if gap > LONG_NANOSECONDS:
                taken = min(gap, max(0, (now - read_at) - (cpu_now - cpu_then)))
                long_gaps.append((gap, gap - taken))
            read_at, cpu_then = now, cpu_now
    own = [part for _gap, part in long_gaps]
    return {
        "turns": turns, "gaps_above_20us": len(long_gaps), "own_above_50us": sum(part > 50_000 for part in own),
        "worst_gap_us": max((gap for gap, _part in long_gaps), default=0) / 1e3, "worst_own_us": max(own, default=0) / 1e3,
        "preempted_seconds": round(sum(gap - part for gap, part in long_gaps) / 1e9, 6),
    }


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(sys.argv[1])})
    print(json.dumps(spin(float(sys.argv[2]))))
