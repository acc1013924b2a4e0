#!/usr/bin/env python3
"""Writes what DCGM exporters of a fleet reported, as OpenMetrics text, up to now.

history.py NODES HOURS STEP_SECONDS > history.om
promtool tsdb create-blocks-from openmetrics history.om data

Eight GPUs a node, three counters each, one pod a GPU; the names are those of backfill.rs.
A sample takes about 285 bytes of text and 9 bytes of the block.
"""

import random
import sys
import time

GPUS = 8
LABELS = (
    'gpu="{gpu}",UUID="GPU-{node:05d}-{gpu}-aaaa-bbbb-cccccccccccc",device="nvidia{gpu}",'
    'modelName="NVIDIA H100 80GB HBM3",Hostname="node-{node}",node="node-{node}",'
    'instance="10.{high}.{middle}.{low}:9400",job="dcgm-exporter",'
    'namespace="team-{team}",pod="train-{node}-{gpu}",container="main"'
)


def main():
    nodes, hours, step = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    begin = time.time() // 60 * 60 - hours * 3600
    draw = random.Random(1)
    # Tables of values: drawing each would take longer than writing it.
    shares = [draw.random() for _ in range(997)]
    counters = {
        "DCGM_FI_PROF_SM_ACTIVE": [f"{share:.6f}" for share in shares],
        "DCGM_FI_DEV_GPU_UTIL": [str(int(share * 100)) for share in shares],
        "DCGM_FI_DEV_FB_USED": [str(draw.randrange(1000, 80000)) for _ in range(991)],
    }
    written = 0
    for counter, values in counters.items():
        sys.stdout.write(f"# TYPE {counter} gauge\n")
        for device in range(nodes * GPUS):
            node, gpu = divmod(device, GPUS)
            high, middle, low = node >> 16 & 255, node >> 8 & 255, node & 255
            labels = LABELS.format(
                gpu=gpu, node=node, high=high, middle=middle, low=low, team=node % 50
            )
            first = begin + draw.random() * step
            for number in range(int(hours * 3600 / step)):
                written += 1
                value = values[written % len(values)]
                sys.stdout.write(f"{counter}{{{labels}}} {value} {first + number * step:.3f}\n")
    sys.stdout.write("# EOF\n")


main()
