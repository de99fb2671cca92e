"""study.yaml, typed and validated."""

import copy
import datetime
import functools
import hashlib
import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from helpers.errors import StudyError, visible
from helpers.files import CLAIMS_FOLDER, STUDY_KEYS, STUDY_YAML
from helpers.texts import packaged

RANKS = ("kingdom", "phylum", "class", "order", "family", "genus", "species")

#: Values that a categorical column of ``obs`` can take (DESIGN: standard names).
VOCABULARY = {
    "group": ("control", "case"),
    "arm": ("treatment", "comparator"),
    "visit": ("baseline", "followup"),
    "lesional": ("lesional", "non_lesional"),
    "control_type": ("sample", "negative"),
}

#: Columns that may have more values, by the names under which they are shown: visits in order, and further arms.
EXTENSIBLE = ("visit", "arm")
#: What none of these may be called: it stands in the same columns of tables.
RESERVED = ("people", "both", "swabs", "who", "step", "reason", "subject", "not recorded", "negative control")

#: The claims files: beside this code, wherever a step or a notebook runs.
CLAIMS = Path(__file__).parents[2] / CLAIMS_FOLDER

#: The greatest count that is hidden where small cells are suppressed.
SMALL = 7
#: Fewer people than this are described: neither tested, nor drawn with an interval, a fit or a mean.
FEW = 5

#: Columns that no severity score or covariate may be named like: of ``obs``, and of the tables made from it.
STANDARD_COLUMNS = (
    "subject", *VOCABULARY, "site", "age", "sex", "batch", "load", "depth", "response",
    "case", "who", "y0", "y1", "change", "improvement", "treated",
)  # fmt: skip

M = TypeVar("M", bound=BaseModel)
_KEYS = packaged("keys.yaml")


def _text(value: Any) -> Any:
    """Numbers and dates of YAML (``visit: 1``) as the text that stands in a metadata file."""
    if isinstance(value, bool):
        raise ValueError("yes, no, true and false need quotes here: 'yes'")
    if isinstance(value, datetime.date):
        return value.isoformat()
    return str(value) if isinstance(value, int | float) else value


def _texts(value: Any) -> Any:
    return [_text(v) for v in value] if isinstance(value, list) else [_text(value)]


def _bare_name(value: str) -> str:
    """A name that can stand in a model formula and as a column of ``obs``."""
    if not value.isidentifier():
        raise ValueError(f"'{value}' must be letters, digits and underscores, not starting with a digit")
    return value


Text = Annotated[str, BeforeValidator(_text, json_schema_input_type=str | float)]
#: A name that is shown in figures and sentences.
Label = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=60)]
Texts = Annotated[list[str], BeforeValidator(_texts, json_schema_input_type=list[str | float] | str | float)]
Name = Annotated[str, AfterValidator(_bare_name)]


class Strict(BaseModel):
    """Unknown keys are errors: a misspelt key must not be dropped in silence."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Described(Strict):
    """What users write: keys.yaml says by the model's name what each key is, with examples where the demo has none."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Take the descriptions along, into the schema too."""
        for name, about in _KEYS[cls.__name__].items():
            field, told = cls.model_fields[name], about if isinstance(about, dict) else {"is": about}
            field.description, field.examples = told["is"], told.get("examples")
        cls.model_rebuild(force=True)


class DataFile(Described):
    """One input file, its path relative to study.yaml."""

    path: str = Field(pattern=r"^[^\x00-\x1f]+$")
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    url: str | None = None


class CountsFile(DataFile):
    """The feature table: BIOM, QIIME 2 artifact, text in either orientation, or an object that holds all of a study."""

    format: Literal["auto", "biom", "qza", "text"] = "auto"
    orientation: Literal["auto", "samples_in_rows", "samples_in_columns"] = "auto"
    fractions: Literal["error", "round", "relative"] = "error"


class MetadataFile(DataFile):
    """What is recorded of each swab: a row a swab, or a row a person."""

    visits: dict[Text, dict[Text, Text]] = Field(default_factory=dict)


class TaxonomyFile(DataFile):
    """Taxonomy by feature: QIIME 2 artifact or text, as one lineage string or one column a rank."""

    format: Literal["auto", "qza", "text"] = "auto"


class TreeFile(DataFile):
    """A phylogeny whose tips are the features: Newick, or a QIIME 2 artifact that holds one."""

    format: Literal["auto", "qza", "newick"] = "auto"


class Files(Described):
    """The study's files."""

    counts: CountsFile
    metadata: MetadataFile | None = None
    taxonomy: TaxonomyFile | Literal["feature_names", "none"] = "none"
    tree: TreeFile | None = None
    unmatched: Literal["error", "ignore"] = "error"

    def each(self) -> dict[str, DataFile]:
        """The files there are, by role."""
        return {role: f for role in type(self).model_fields if isinstance(f := getattr(self, role), DataFile)}


class Column(Described):
    """A categorical column: which of the file's values mean which standard value."""

    column: Text
    values: dict[str, Texts]
    ignore: Texts = Field(default_factory=list)


class Columns(Described):
    """Where the standard columns of the cohort are in the metadata file."""

    sample: Text
    subject: Text
    subject_endings: Texts = Field(default_factory=list)
    group: Column
    visit: Column
    arm: Column | None = None
    arm_from: Literal["every_visit", "baseline"] = "every_visit"
    site: Text | None = None
    lesional: Column | None = None
    control_type: Column | None = None
    age: Text | None = None
    age_unit: Literal["years", "months"] = "years"
    sex: Text | None = None
    batch: Text | None = None
    load: Text | None = None
    covariates: dict[Name, Text] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _values_are_standard(self) -> "Columns":
        for name, standard in VOCABULARY.items():
            if (column := getattr(self, name)) is None:
                continue
            further = [v for v in column.values if v not in standard]
            if further and not (name in EXTENSIBLE and set(standard) <= set(column.values)):
                raise ValueError(f"{name}.values: unknown {', '.join(further)}; known: {', '.join(standard)}")
            if wrong := [v for v in further if v in {*RESERVED, *Labels.model_fields} or not 0 < len(v.strip()) <= 60]:
                raise ValueError(f"{name}.values: '{wrong[0]:.60}' cannot be the name of a further {name}")
            if further and name == "visit" and next(iter(column.values)) != "baseline":
                raise ValueError("visit.values: more than two visits are named in order, baseline first")
            listed = [v for values in column.values.values() for v in values] + column.ignore
            if twice := sorted({v for v in listed if listed.count(v) > 1}):
                raise ValueError(f"{name}: {', '.join(twice)} is listed twice")
        return self


class Severity(Described):
    """A severity score, higher is worse."""

    name: Name
    column: Text
    label: Label
    range: tuple[float, float]

    @field_validator("range")
    @classmethod
    def _rises(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not all(map(math.isfinite, value)):
            raise ValueError("both ends must be finite")
        if not value[0] < value[1]:
            raise ValueError(f"the highest possible value must be above the lowest, {value[0]:g}")
        return value


class Response(Described):
    """Response thresholds, in per cent improvement of the first severity score."""

    non_responder: float = Field(50, ge=0, le=100)
    responder: float = Field(75, ge=0, le=100)
    near_clear: float = Field(90, ge=0, le=100)

    @model_validator(mode="after")
    def _ordered(self) -> "Response":
        if not self.non_responder < self.responder < self.near_clear:
            raise ValueError("thresholds must rise: non_responder < responder < near_clear")
        return self


class Taxa(Described):
    """The taxa that the claims are about, as the taxonomy names them; measures are named after them."""

    genus: Label = "Staphylococcus"
    pathogen: Label = "Staphylococcus aureus"
    commensal: Label = "Staphylococcus hominis"
    genera_shown: int = Field(10, ge=1, le=20)

    @property
    def names(self) -> list[str]:
        """What is set in italics, species also in their short form."""
        species = [self.pathogen, self.commensal]
        return [self.genus, *species, *(re.sub(r"^(\w)\w* (?=[a-z]+$)", r"\1. ", name) for name in species)]


class Labels(Described):
    """Display names. Notebooks and figures take them from here and only here."""

    control: Label = "Control"
    case: Label = "Patient"
    treatment: Label = "Treatment"
    comparator: Label = "Comparator"
    baseline: Label = "Baseline"
    followup: Label = "Follow-up"
    site: Label = "skin"


class Adjust(Described):
    """Covariates of the adjusted models."""

    group: list[Name] = Field(default_factory=list)
    arm: list[Name] = Field(default_factory=list)


class Settings(Described):
    """The analysis settings: each is a papermill parameter of the notebooks that use it."""

    swabs: Literal["all", "lesional_at_baseline"] = "all"
    rarefaction_depth: int = Field(1000, ge=1, le=5 * 10**8)
    min_prevalence: float = Field(0.1, ge=0, le=1)
    permutations: int = Field(999, ge=99, le=10**6)
    rarefactions: int = Field(10, ge=1, le=10**4)
    bootstraps: int = Field(1000, ge=100, le=10**6)
    robustness: Literal["full", "light", "off"] = "full"
    equivalence_margin: float = Field(0.5, gt=0, allow_inf_nan=False)
    alpha: float = Field(0.05, gt=0, lt=0.5)
    seed: int = Field(2023, ge=0, lt=2**32)


class Privacy(Described):
    """What the report may show of single patients."""

    small_cells: Literal["show", "suppress"] = "show"
    oldest_age: int | None = Field(None, ge=18, le=120)

    @property
    def fewest(self) -> int:
        """The fewest people of whom anything is shown, where small cells are suppressed; else 0."""
        return 0 if self.small_cells == "show" else SMALL + 1

    @property
    def enough(self) -> int:
        """The fewest people of whom a mean is told with its interval, or a test."""
        return max(FEW, self.fewest)

    def shown(self, count: float) -> str:
        """A number of people or swabs as the report may show it: ``≤7`` or the nearest multiple of 5 if suppressed.

        After OpenSAFELY, Output checking: counts of 7 or less are redacted, the rest is rounded to the nearest 5.
        """
        if self.small_cells == "show":
            return f"{count:.0f}"
        return f"≤{SMALL}" if count <= SMALL else f"{5 * math.floor(count / 5 + 0.5)}"


class Study(Described):
    """A study.yaml: files, columns, names and analysis settings of one cohort."""

    title: str
    simulated: bool
    randomised: bool = False
    about: str
    source: str
    licence: str
    files: Files
    columns: Columns
    severity: list[Severity] = Field(default_factory=list)
    response: Response = Response()
    taxa: Taxa = Taxa()
    claims: Name = "hartmann2023"
    own_claims: dict[str, Any] = Field(default_factory=dict, max_length=100)
    without_choices: dict[str, Texts] = Field(default_factory=dict)
    labels: Labels = Labels()
    adjust: Adjust = Adjust()
    minimum_depth: int = Field(1000, ge=0, le=10**9)
    settings: Settings = Settings()
    privacy: Privacy = Privacy()

    _folder: Path = PrivateAttr(default=Path())

    @model_validator(mode="after")
    def _names_exist(self) -> "Study":
        scores = [s.name for s in self.severity]
        known = {n for n in ("age", "sex", "batch") if getattr(self.columns, n)}
        known |= set(scores) | set(self.columns.covariates)
        if unknown := sorted({*self.adjust.group, *self.adjust.arm} - known):
            raise ValueError(f"adjust: no column for {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        if self.settings.swabs == "lesional_at_baseline" and self.columns.lesional is None:
            raise ValueError("settings.swabs is lesional_at_baseline, but columns.lesional is not given")
        for visit, named in (self.files.metadata.visits if self.files.metadata else {}).items():
            if self.columns.sample not in named:
                raise ValueError(f"files.metadata.visits.{visit}: '{self.columns.sample}', the swabs, is not given")
        names = [*scores, *self.columns.covariates]
        if repeated := sorted({n for n in names if names.count(n) > 1 or n in STANDARD_COLUMNS}):
            raise ValueError(f"severity and covariates: {', '.join(repeated)} is the name of another column")
        return self

    @property
    def folder(self) -> Path:
        """The folder of study.yaml, to which the files' paths are relative."""
        return self._folder

    @property
    def described(self) -> DataFile:
        """The file with the metadata."""
        return self.files.metadata or self.files.counts

    @property
    def claims_file(self) -> Path:
        """The file of its claims."""
        return CLAIMS / f"{self.claims}.yaml"

    @property
    def counted(self) -> bool:
        """Whether the table has reads, not relative abundances."""
        return self.files.counts.fractions != "relative"

    def elsewhere(self, folder: str | Path) -> "Study":
        """The same study with its files in another folder, whatever their checksums."""
        unsigned = {role: file.model_copy(update={"sha256": None}) for role, file in self.files.each().items()}
        moved = self.model_copy(update={"files": self.files.model_copy(update=unsigned)})
        moved._folder = Path(folder)
        return moved

    def standard(self, name: str) -> tuple[str, ...]:
        """The values that a column of ``obs`` can take here, in order: those of `VOCABULARY`, and this study's own."""
        column, standard = getattr(self.columns, name), VOCABULARY[name]
        further = [v for v in column.values if v not in standard] if column else []
        return tuple(column.values) if further and name == "visit" else (*standard, *further)

    @property
    def names(self) -> dict[str, str]:
        """Display names of groups, arms and visits, with those of further arms and visits, which are their own."""
        own = {value: value for name in EXTENSIBLE for value in self.standard(name)}
        return own | self.labels.model_dump()

    def column_names(self) -> dict[str, str]:
        """Display names of the columns that the study names itself: severity scores and covariates."""
        names = {name: name.replace("_", " ") for name in self.columns.covariates}
        return names | {score.name: score.label for score in self.severity}

    def adjusted(self, covariates: list[str]) -> str:
        """The covariates of a model as they stand in a sentence."""
        names = self.column_names()
        return ", ".join(names.get(c, c) for c in covariates) or "nothing"

    def path(self, file: DataFile) -> Path:
        """Where a file of this study is."""
        return self._folder / file.path

    def read(self, file: DataFile) -> bytes:
        """Read a file of this study and verify its checksum against that of study.yaml."""
        path = self.path(file)
        try:
            if path.exists() and not path.is_file():  # a pipe or a device could be read for ever
                raise StudyError.of("path_no_file", path)
            data = path.read_bytes()
        except FileNotFoundError:
            fetch = f"`make data STUDY={self._folder.absolute().name}` fetches it from {file.url}; or "
            raise StudyError.of("absent", path, fetch=fetch if file.url else "") from None
        except OSError as e:
            raise StudyError.of("unreadable", path, found=e.strerror) from None
        found, expected = hashlib.sha256(data).hexdigest(), file.sha256
        if expected not in (None, found):
            raise StudyError.of("other_file", path, found=found, expected=expected)
        return data


def _shown(value: object) -> str:
    try:
        return f"{value!r:.80}"
    except ValueError:  # Python writes no number of more than some thousand digits
        return "a very long number"


def schema_message(error: ValidationError) -> str:
    """All problems of a pydantic validation, one a line, each with its key."""
    lines = []
    for e in error.errors():
        key = ".".join(str(part) for part in e["loc"])
        found = "" if e["type"] in ("missing", "extra_forbidden") else f" (found: {_shown(e['input'])})"
        what = {"extra_forbidden": "is not a known key", "missing": "is missing"}.get(e["type"], e["msg"])
        line = f"{key or 'the study'}: {what.removeprefix('Value error, ')}{found if e['loc'] else ''}"
        lines.append(line if len(line) <= 250 else f"{line[:249]}…")
    return "\n".join([*lines[:20], *([f"and {len(lines) - 20} more"] if len(lines) > 20 else [])])


class _Loader(yaml.SafeLoader):
    """Safe YAML; also refuses what a study never needs and a hostile or careless file has."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse aliases: a few lines of them can stand for a billion values."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not accepted", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Refuse a key that is given twice: the first would be dropped in silence."""
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: Any) -> Any:
        """Refuse characters that no page and no figure can show; escape those that would show another text."""
        value = super().construct_scalar(node)
        if unprintable(value):
            raise yaml.constructor.ConstructorError(None, None, "control characters are not accepted", node.start_mark)
        return visible(value)


def unprintable(text: str) -> bool:
    """Whether a text has control characters (other than tabs and line ends) or half of a surrogate pair."""
    return re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]", text) is not None


@functools.lru_cache(maxsize=8)
def _parsed(text: str) -> Any:
    """What a text of YAML holds, kept: a step asks several times for the same files, and PyYAML takes its time."""
    return yaml.load(text, Loader=_Loader)


def read_yaml(file: Path, what: str, fix: str, keys: str | Path) -> dict[str, Any]:
    """Read a YAML file of keys and values, safely.

    For the message of an error: `what` the file should be, the `fix` if there is none, where its `keys` are described.
    """
    try:
        content = copy.deepcopy(_parsed(file.read_text(encoding="utf-8-sig")))
    except FileNotFoundError:
        raise StudyError("there is no such file", file=file, fix=fix) from None
    except (OSError, UnicodeDecodeError) as e:
        raise StudyError.of("no_utf8", file, found=e) from None
    except Exception as e:  # PyYAML raises whatever a broken date, number or nesting meets
        raise StudyError.of("no_yaml", file, found=" ".join(str(e).split())[:500] or type(e).__name__) from None
    if not isinstance(content, dict):
        found = "nothing" if content is None else type(content).__name__
        raise StudyError.of("no_keys", file, what=what, keys=keys, found=found)
    return content


def validated(model: type[M], content: Any, file: Path, what: str, keys: str | Path) -> M:
    """What a file says, as its model; the error names every wrong key.

    For its message: `what` the file should be, and where its `keys` are described.
    """
    try:
        return model.model_validate(content)
    except ValidationError as e:
        found = schema_message(e).replace("\n", "\n" + " " * 12)
        raise StudyError.of("wrong_keys", file, what=what, keys=keys, found=found) from None


def load_study(folder: str | Path) -> Study:
    """Read and validate ``study.yaml`` of a folder such as ``data/demo``; the error names every wrong key."""
    file, keys = Path(folder) / STUDY_YAML, STUDY_KEYS
    content = read_yaml(file, "a study", "give STUDY= the name of a folder in data/", keys)
    study = validated(Study, content, file, "a valid study", keys)
    study._folder = Path(folder)
    return study
