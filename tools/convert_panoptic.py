#!/usr/bin/env python
"""Convert panoptic annotations: from and to COCO's panoptic format (one JSON file, one PNG an image).

  to-instances     panoptic -> COCO instances (RLE masks, boxes, areas)
  to-semantic      panoptic -> label images, one number a class
  from-instances   COCO instances, and label images or a background for stuff -> panoptic
  from-cityscapes  Cityscapes' instance images -> panoptic

Training needs none of this: a panoptic set is registered by its JSON file and folders (datasets/README.md).
Nothing that exists is replaced without --overwrite; a JSON file appears when all else is written.
"""

import argparse
from typing import Any

from panomask.data.datasets.cityscapes_conversion import cityscapes_to_panoptic
from panomask.data.datasets.panoptic_conversion import LAYOUTS, panoptic_to_instances, panoptic_to_semantic
from panomask.data.datasets.panoptic_creation import OVERLAP_RULES, instances_to_panoptic
from panomask.engine import run_tool, setup_logger
from panomask.errors import InputError
from panomask.json_file import read_json

EXAMPLES = """
examples:
  %(prog)s to-instances panoptic_val2017.json panoptic_val2017 instances.json
  %(prog)s to-semantic panoptic_val2017.json panoptic_val2017 labels
  %(prog)s from-instances nuclei.json panoptic.json panoptic --background background
  %(prog)s from-instances cars.json panoptic.json panoptic --semantic-root labels --stuff 1=road 2=sky
  %(prog)s from-cityscapes cityscapes/gtFine/val

`%(prog)s to-instances --help` and so on say more.
"""


def parse_args() -> argparse.Namespace:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=form)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    shared.add_argument("--num-workers", type=int, default=0, metavar="N", help="processes; default: one")

    def add(name: str, summary: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name, parents=[shared], help=summary, description=summary, formatter_class=form
        )

    for name, summary in (
        ("to-instances", "Write a COCO instances file: each thing with its RLE, box and area."),
        ("to-semantic", "Write one grey-scale PNG an image: each pixel holds the number of its class."),
    ):
        command = add(name, summary)
        command.add_argument("panoptic_json", metavar="PANOPTIC_JSON", help="the panoptic JSON file")
        command.add_argument("panoptic_root", metavar="PANOPTIC_ROOT", help="the folder of its PNG files")
        if name == "to-instances":
            command.add_argument("output", metavar="OUTPUT_JSON", help="the file to write")
            command.add_argument("--with-stuff", action="store_true", help="write stuff as objects, too")
        else:
            command.add_argument("output", metavar="OUTPUT_DIR", help="the folder to write to")
            command.add_argument(
                "--layout",
                choices=LAYOUTS,
                default="things-first",
                help="; ".join(f"{layout}: {text}" for layout, text in LAYOUTS.items()),
            )
        add_drop_bad(command)
    add_from_instances(add("from-instances", "Write a panoptic JSON file and its PNG files from objects."))
    command = add(
        "from-cityscapes",
        "Write what cityscapesscripts' createPanopticImgs writes, for the sets cityscapes_fine_panoptic_*.",
    )
    command.add_argument("gt_dir", metavar="GT_DIR", help="folder of a split, as cityscapes/gtFine/train")
    command.add_argument(
        "--output-json", metavar="FILE", help="default: cityscapes_panoptic_train.json beside"
    )
    command.add_argument("--output-root", metavar="DIR", help="default: cityscapes_panoptic_train beside it")
    return parser.parse_args()


def add_from_instances(command: argparse.ArgumentParser) -> None:
    command.add_argument("instance_json", metavar="INSTANCE_JSON", help="COCO instances; each needs a mask")
    command.add_argument("output_json", metavar="OUTPUT_JSON", help="the panoptic file to write")
    command.add_argument("output_root", metavar="OUTPUT_DIR", help="the folder for its PNG files")
    command.add_argument(
        "--semantic-root", metavar="DIR", help="label images named as the photographs, with the ending .png"
    )
    command.add_argument(
        "--stuff",
        nargs="+",
        default=[],
        metavar="VALUE=NAME",
        help="the classes in the label images: 1=road 2=sky; or a JSON file of COCO categories (id = value)",
    )
    command.add_argument("--background", metavar="NAME", help="one stuff class for all that is no object")
    command.add_argument(
        "--ignore",
        nargs="*",
        type=int,
        default=[0, 255],
        metavar="VALUE",
        help="values of label images that are no class; default: 0 255",
    )
    command.add_argument(
        "--overlap",
        choices=OVERLAP_RULES,
        default="smaller",
        help="; ".join(f"{rule}: {text}" for rule, text in OVERLAP_RULES.items()) + "; default: smaller",
    )
    add_drop_bad(command)


def add_drop_bad(command: argparse.ArgumentParser) -> None:
    command.add_argument("--drop-bad", action="store_true", help="leave bad annotations out, and count them")


def read_stuff(entries: list[str]) -> list[dict[str, Any]]:
    """Categories from VALUE=NAME pairs, or from a JSON file."""
    if len(entries) == 1 and "=" not in entries[0]:
        document = read_json(entries[0])
        found = document.get("categories") if isinstance(document, dict) else document
        if not isinstance(found, list):
            raise InputError(f'{entries[0]}: no list of categories; a list, or an object with "categories"')
        return found
    categories = []
    for entry in entries:
        value, _, name = entry.partition("=")
        if not value.isascii() or not value.isdigit() or not name:
            raise InputError(f"--stuff {entry}: VALUE=NAME is needed, such as 1=road")
        categories.append({"id": int(value), "name": name})
    return categories


def main() -> None:
    args = parse_args()
    setup_logger()
    how = {"num_workers": args.num_workers, "overwrite": args.overwrite}
    if args.command != "from-cityscapes":
        how["on_bad"] = "drop" if args.drop_bad else "refuse"
    if args.command == "to-instances":
        panoptic_to_instances(
            args.panoptic_json, args.panoptic_root, args.output, with_stuff=args.with_stuff, **how
        )
    elif args.command == "to-semantic":
        panoptic_to_semantic(args.panoptic_json, args.panoptic_root, args.output, layout=args.layout, **how)
    elif args.command == "from-cityscapes":
        cityscapes_to_panoptic(args.gt_dir, args.output_json, args.output_root, **how)
    else:
        instances_to_panoptic(
            args.instance_json,
            args.output_json,
            args.output_root,
            semantic_root=args.semantic_root,
            stuff=read_stuff(args.stuff),
            background=args.background,
            ignored=args.ignore,
            overlap=args.overlap,
            **how,
        )


if __name__ == "__main__":
    run_tool(main)
