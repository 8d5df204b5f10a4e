"""Package metadata. Nothing is compiled and torch is not imported here."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "panomask/__init__.py").read_text(), re.MULTILINE)[1]

setup(
    name="panomask",
    version=VERSION,
    description="Instance segmentation: Detectron2's configs, checkpoints and names in pure Python",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=[*find_packages(include=["panomask", "panomask.*"]), "panomask.configs"],
    # The model zoo (panomask.model_zoo) travels with the package.
    package_dir={"panomask.configs": "configs"},
    package_data={"panomask.configs": ["*.tsv", "*.yaml", "*/*.yaml"], "panomask.ablation": ["page.html"]},
    install_requires=[
        "torch>=2.2",
        "torchvision>=0.17",
        "numpy>=1.24",
        "jinja2>=3.1",
        "fvcore>=0.1.5.post20221221",
        "iopath>=0.1.9",
        "pycocotools>=2.0.7",
        "opencv-python>=4.8",
        "pillow>=9.5",
        "pyyaml>=6.0",
        "safetensors>=0.4",
        "tabulate>=0.9",
        "tensorboard>=2.14",
        "tqdm>=4.65",
    ],
    extras_require={
        "ablation": ["matplotlib>=3.8", "scipy>=1.11"],
        "cityscapes": ["shapely>=2"],
        "dev": [
            "pytest>=8",
            "matplotlib>=3.8",
            "scipy>=1.11",
            "shapely>=2",
            "timm>=1.0.22",
            "ruff>=0.8",
            "mypy>=1.11",
            "types-PyYAML",
            "types-tabulate",
            "types-tqdm",
        ],
        "timm": ["timm>=1.0.22"],
    },
)
