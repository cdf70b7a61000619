"""What raydiff does on this machine's GPU, in nine minutes: is it right, how fast is it, how well does it learn.

    python jobs/gpu_check.py --pack /data/mvtec --into .gpu                                # where the data are
    python jobs/gpu_check.py --data .gpu/data --weights .gpu/weights --out .gpu/out         # where the GPU is

docs/gpu.md says what each row means. It needs neither Ray nor typer, so that it runs on a machine without them.
"""

import argparse
import sys
from pathlib import Path

from raydiff.errors import RaydiffError, SettingsError
from raydiff.gpu_check import packing, parts, results


def main() -> int:
    """Pack, or check; 0 if all is as it must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a folder for results.jsonl and results.md")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes for a CPU: the command is tried, not the device")
    parser.add_argument("--data", help="images in MVTec AD's layout; without them made ones are used")
    parser.add_argument(
        "--weights", nargs="*", default=[], help="a folder of <timm name>.safetensors; with --pack, files"
    )
    parser.add_argument("--pack", metavar="DATA", help="instead of checking, make a small copy of these images")
    parser.add_argument("--into", type=Path, help="where --pack puts the folders data and weights")
    parser.add_argument("--per-folder", type=int, metavar="N", help="pack at most so many images of each folder")
    given = parser.parse_args()
    try:
        if given.pack:
            if given.into is None:
                raise SettingsError("--pack needs --into, the folder that the packed data and weights go to")
            print(packing.pack(given.pack, given.weights, given.into, given.per_folder))
            return 0
        if given.out is None:
            raise SettingsError("--out is missing; give a folder for the results")
        if len(given.weights) > 1:
            raise SettingsError("--weights takes one folder; only --pack takes several files")
        job = parts.Job(given.device, given.tiny, given.data, next(iter(given.weights), None))
        good = parts.run(job, given.out)
    except RaydiffError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{given.out / results.TABLE}: {'all parts are done and as they must be' if good else 'not all is well'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
