"""Stands in for tools/train_net.py: the same command line and files, done in a fraction of a second.

Its score is 10 * MODEL.RESNETS.DEPTH + SEED. A file `fail`, `hang`, `die`, `deaf` (to SIGTERM) or
`no_results` beside the base config names the runs (such as "34 2", depth and seed) that do or are so.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

words = sys.argv[1:]
config = Path(words[words.index("--config-file") + 1])
pairs = words[words.index("--resume") + 1 :]
keys = dict(zip(pairs[0::2], pairs[1::2], strict=True))
folder = Path(keys["OUTPUT_DIR"])
name = f"{keys['MODEL.RESNETS.DEPTH']} {keys['SEED']}"


def is_asked(what: str) -> bool:
    file = config.with_name(what)
    return file.is_file() and name in file.read_text().splitlines()


with (config.parent / "calls.txt").open("a") as calls:
    calls.write(
        f"{name} {os.environ.get('CUDA_VISIBLE_DEVICES', '')} {os.environ.get('OMP_NUM_THREADS', '')}\n"
    )
print(f"training {name}", flush=True)
if is_asked("deaf"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if is_asked("hang"):
    (config.parent / "hanging").write_text(str(os.getpid()))
    while is_asked("hang"):
        time.sleep(0.05)
if is_asked("die"):
    os.kill(os.getpid(), signal.SIGKILL)
if is_asked("fail"):
    sys.exit("error: SOLVER.BASE_LR is too high")
if not is_asked("no_results"):
    score = 10 * int(keys["MODEL.RESNETS.DEPTH"]) + int(keys["SEED"])
    (folder / "results.json").write_text(json.dumps({"val": {"bbox": {"AP": score, "AP50": None, "APl": 2}}}))
    lines = [{"iteration": 9, "time": 0.5, "max_mem": 100}, {"iteration": 19, "time": 0.25, "max_mem": 120}]
    (folder / "metrics.json").write_text("\n".join([*map(json.dumps, lines), '{"iteration": 2']))
