"""Folders of diffusers and transformers: which files hold weights, and what they are together."""

from dataclasses import replace
from pathlib import Path

from ..errors import WeightsFormatError, WeightsMissingError
from .component import CONFIG, component_files, read_object
from .files import SUFFIXES, TensorInfo, open_tensors, some
from .identity import Identity, identify, recognise
from .kinds import ABOUT, Kind

PIPELINE = "model_index.json"
NETWORKS = ("unet", "transformer", "prior")  # the component that tells what a pipeline is
SETTINGS = ("_class_name", "model_type", "depth_estimation_type")
# What several files of one folder are together.
TOGETHER = {frozenset({Kind.TAESD_ENCODER, Kind.TAESD_DECODER}): Kind.TAESD}


def inspect_folder(folder: Path) -> Identity:
    """What a folder is: a diffusers pipeline, one component, or loose files that belong together.

    Raises WeightsMissingError where weights are not there, WeightsFormatError for a folder of
    files that are something only one by one, and for damaged files.
    """
    if (folder / PIPELINE).is_file():
        return _inspect_pipeline(folder)
    files = component_files(folder)
    if files:
        return _inspect_component(folder, files)
    return _inspect_loose(folder)


def _inspect_pipeline(folder: Path) -> Identity:
    listed = [name for name in read_object(folder / PIPELINE) if (folder / name).is_dir()]
    found = {name: files for name in listed if (files := component_files(folder / name))}
    network = next((name for name in NETWORKS if name in found), None)
    if network is None:
        raise WeightsMissingError(
            f"{folder} is a diffusers folder without weights of its {' or '.join(NETWORKS)}: "
            "download it again"
        )
    infos: dict[str, TensorInfo] = {}
    for name, files in found.items():
        infos |= {f"{name}.{key}": info for key, info in _infos(files).items()}
    of_network = _inspect_component(folder, found[network])
    whole = recognise(folder, infos, "diffusers folder")
    kind = Kind.SD15 if of_network.kind is Kind.SD15_UNET else of_network.kind
    return replace(
        of_network,
        kind=kind,
        title=of_network.title if kind is of_network.kind else ABOUT[kind].name,
        use=ABOUT[kind].use,
        container=whole.container,
        parameters=whole.parameters,
        dtypes=whole.dtypes,
        details=(*of_network.details, f"holds {', '.join(sorted(found))}"),
    )


def _inspect_component(folder: Path, files: tuple[Path, ...]) -> Identity:
    config = folder / CONFIG
    settings = read_object(config) if config.is_file() else {}
    details = [f"{key}: {settings[key]}" for key in SETTINGS if isinstance(settings.get(key), str)]
    return recognise(folder, _infos(files), f"folder, {files[0].suffix[1:]}", details)


def _inspect_loose(folder: Path) -> Identity:
    """One file of any name, or several that are one model."""
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    if not files:
        raise WeightsMissingError(
            f"{folder} holds no weights: expected {PIPELINE} (a diffusers folder), {CONFIG} with "
            f"a file beside it, or a file ({', '.join(SUFFIXES)})"
        )
    found = [identify(open_tensors(path)) for path in files]
    kind = TOGETHER.get(frozenset(identity.kind for identity in found))
    if len(files) > 1 and (kind is None or len(files) > 2):
        raise WeightsFormatError(
            f"{folder} holds {len(files)} files that are no one model "
            f"({some([path.name for path in files], 3)}): give one of them"
        )
    whole = recognise(folder, _infos(tuple(files)), found[0].container)
    if kind is None:
        return replace(found[0], path=folder)
    return replace(whole, kind=kind, title=ABOUT[kind].name, use=ABOUT[kind].use)


def _infos(files: tuple[Path, ...]) -> dict[str, TensorInfo]:
    return {key: info for path in files for key, info in open_tensors(path).infos.items()}
