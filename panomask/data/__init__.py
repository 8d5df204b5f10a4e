"""Data sets by name, readers, transforms and loaders; importing this registers the built-in data sets."""

from panomask.data import datasets as datasets
from panomask.data.batching import MapDataset, ToIterableDataset
from panomask.data.build import (
    build_batch_data_loader,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
    load_proposals_into_dataset,
    print_instances_class_histogram,
)
from panomask.data.catalog import DatasetCatalog, Metadata, MetadataCatalog
from panomask.data.dataset_mapper import DatasetMapper
from panomask.data.serialized_list import DatasetFromList

__all__ = [
    "DatasetCatalog",
    "DatasetFromList",
    "DatasetMapper",
    "MapDataset",
    "Metadata",
    "MetadataCatalog",
    "ToIterableDataset",
    "build_batch_data_loader",
    "build_detection_test_loader",
    "build_detection_train_loader",
    "get_detection_dataset_dicts",
    "load_proposals_into_dataset",
    "print_instances_class_histogram",
]
