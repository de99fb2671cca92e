"""The choices of an analysis, read from their file; and the specifications that they make of a claim."""

import difflib
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, Literal

from anndata import AnnData
from pydantic import Field, model_validator

from helpers.diversity import ALPHA
from helpers.errors import StudyError
from helpers.files import CHOICES, CHOICES_KEYS
from helpers.measures import POSITION, find
from helpers.study import CLAIMS, VOCABULARY, Described, Settings, Strict, Study, read_yaml, validated

if TYPE_CHECKING:
    from helpers.evidence import Asked

#: A specification: option by choice.
Specification = dict[str, str]
Need = Literal["counts", "tree", "batch", "lesional", "negatives", "sites", "covariates", "controls", "visits"]
#: Depths that fewer swabs reach are no option.
REACHED = 0.8
#: Choices that one model answers together: what is drawn of the specifications is drawn of all others.
TOGETHER = ("estimator", "loss")


class Option(Described):
    """What can be chosen."""

    says: str = ""
    needs: Need | None = None
    only: list[str] = Field(default_factory=list)
    keeps_estimand: bool | None = None
    light: bool = False


class Choice(Described):
    """A choice that an analysis makes."""

    says: str
    keeps_estimand: bool
    measures: list[str] = Field(default_factory=list)
    contrasts: list[str] = Field(default_factory=list)
    default: str
    options: dict[str, Option]

    @model_validator(mode="after")
    def _has_its_default(self) -> "Choice":
        setting = self.default.removeprefix("settings.")
        if self.default not in self.options and setting not in Settings.model_fields:
            raise ValueError(f"the default {self.default} is neither an option nor a setting")
        return self

    def own(self, settings: Settings) -> str:
        """The option that the report takes."""
        name = self.default.removeprefix("settings.")
        return name if name == self.default else str(getattr(settings, name))

    def keeps(self, option: str) -> bool:
        """Whether an option estimates what the report does, if the report takes another one."""
        own = self.options[option].keeps_estimand if option in self.options else None
        return self.keeps_estimand if own is None else own

    def is_one(self, option: str, tags: Set[str]) -> bool:
        """Whether it is an option to a question with these `tags`: kind, contrast, space, estimator."""
        only = self.options[option].only if option in self.options else ()
        return not only or not tags.isdisjoint(only)

    def word(self, option: str) -> str:
        """An option in words."""
        says = self.options[option].says if option in self.options else ""
        return says or (f"{int(option):,}" if option.isdigit() else option.replace("_", " "))


class Choices(Strict):
    """The file of choices."""

    choices: dict[str, Choice]


def load_choices(study: Study, settings: Settings) -> dict[str, Choice]:
    """The choices, without the options that a study switches off; `StudyError` where it cannot."""
    file = CLAIMS / CHOICES.name
    content = read_yaml(file, "a file of choices", "lay it there", CHOICES_KEYS)
    choices = validated(Choices, content, file, "a valid file of choices", CHOICES_KEYS).choices
    off, in_file = study.without_choices, study.folder / "study.yaml"
    for name, option in ((name, option) for name, options in off.items() for option in options):
        where, known = f"without_choices.{name}", choices[name].options if name in choices else choices
        wrong = option if name in choices else name
        if wrong not in known:
            close = difflib.get_close_matches(wrong, known, 1)
            told = {"known": ", ".join(known), "keys": CHOICES_KEYS, "fix": close and f"did you mean {close[0]}?"}
            raise StudyError.of("no_choice", in_file, where=where, found=wrong, **told)
        if option == choices[name].own(settings):
            raise StudyError.of("own_choice", in_file, where=where, found=option)
    left = {name: {k: o for k, o in of.options.items() if k not in off.get(name, [])} for name, of in choices.items()}
    return {name: choice.model_copy(update={"options": left[name]}) for name, choice in choices.items()}


def absent(
    choices: Mapping[str, Choice], cohort: AnnData, study: Study, settings: Settings
) -> dict[tuple[str, str], str]:
    """The options for which the study has nothing, and why; `cohort` has contaminants and negative controls."""
    obs = cohort.obs[cohort.obs["control_type"].eq("sample")]
    adjust, one_run = [*study.adjust.group, *study.adjust.arm], "batch" not in obs or obs["batch"].nunique() < 2
    one_site = obs.groupby("subject", observed=True)["site"].nunique().max() < 2
    lacks = {
        "counts": not study.counted and "the study gives relative abundances",
        "tree": (not study.counted or "tree" not in cohort.uns) and "the study gives no tree",
        "batch": (one_run or "batch" in adjust) and "there are no runs beside the covariates",
        "lesional": not obs["lesional"].any() and "lesional skin is not recorded",
        "negatives": not cohort.obs["control_type"].eq("negative").any() and "there are no negative controls",
        "sites": one_site and "everybody was swabbed at one site",
        "covariates": not adjust and "the study names no covariates",
        "visits": obs["visit"].nunique() <= len(VOCABULARY["visit"]) and "there are no more than two visits",
        "controls": not (obs["group"].eq("control") & obs["visit"].eq("followup")).any() and "no control came twice",
    }
    depth = cohort[obs.index].X.sum(axis=1).A1
    found: dict[tuple[str, str], str] = {}
    for name, choice in choices.items():
        for option, of in choice.options.items():
            reason = lacks[of.needs] if of.needs else False
            if name == "depth" and option.isdigit() and (depth >= int(option)).mean() < REACHED:
                reason = f"fewer than {100 * REACHED:.0f} % of the swabs reach it"
            if reason and option != choice.own(settings):
                found[name, option] = reason
    return found


def kind_of(measure: str, study: Study) -> str:
    """The kind of a measure, as choices tell them apart."""
    if measure in ALPHA:
        return "alpha"
    of = find(measure, study)
    if of.kind == "severity":
        return "severity"
    relative = of.kind == "taxon" and not measure.endswith(("_share", "_load"))
    return "axis" if measure == POSITION else "taxon" if relative else "other"


def touched(asked: "Asked", spec: Specification, choices: Mapping[str, Choice], study: Study) -> Specification | None:
    """A specification as a question sees it: the choices that touch it; None if an option is none to it."""
    return _seen(spec, *_sight(asked, choices, study))


def _sight(asked: "Asked", choices: Mapping[str, Choice], study: Study) -> tuple[set[str], dict[str, Choice]]:
    """The kind and contrast of a question, and the choices that its contrast leaves."""
    contrast = asked.among or asked.contrast
    can = {name: choice for name, choice in choices.items() if not choice.contrasts or contrast in choice.contrasts}
    return {kind_of(asked.measure, study), contrast}, can


def _seen(spec: Specification, tags: set[str], can: Mapping[str, Choice]) -> Specification | None:
    tags = tags | {spec["estimator"], spec["space"] if "axis" in tags else ""}
    seen = {}
    for name, choice in can.items():
        if choice.measures and tags.isdisjoint(choice.measures):
            continue
        if not choice.is_one(spec[name], tags):
            return None
        seen[name] = spec[name]
    return seen


def _possible(
    asked: Sequence["Asked"], choices: Mapping[str, Choice], offered: Mapping[str, Sequence[str]], study: Study
) -> dict[str, list[str]]:
    """The options of each choice that can be one to any of the questions."""
    sights = [_sight(each, choices, study) for each in asked]
    more = {*offered["estimator"], *offered["space"]}
    same = {each.measure for each in asked if kind_of(each.measure, study) == "alpha"}
    possible = {}
    for name, choice in choices.items():
        of = [tags | more if "axis" in tags else tags | {*offered["estimator"]} for tags, can in sights if name in can]
        of = [tags for tags in of if not choice.measures or not tags.isdisjoint(choice.measures)]
        options = [option for option in offered[name] if any(choice.is_one(option, tags) for tags in of)]
        if name == "alpha" and len(same) == 1:
            options = [option for option in options if option not in same]  # it is claimed
        possible[name] = options or [offered[name][0]]
    return possible


def specifications(
    asked: Sequence["Asked"],
    choices: Mapping[str, Choice],
    offered: Mapping[str, Sequence[str]],
    own: Specification,
    study: Study,
    limit: int,
) -> list[tuple[Specification, list[Specification]]]:
    """The specifications of a claim: all that keep the estimand, all that differ in one choice, and a draw of the rest.

    What its parts ask, `asked`, follows one specification. `offered` are the options of each choice, the report's
    first; `own` is the report's specification. The rest is drawn until there are as many as the `limit`, in the order
    of the largest checksum of its parts: another option moves no other draw, and parts of one measure and its options
    are drawn for all claims alike.

    Specifications come back, the report's first, each with what its parts see of it, as from `touched`. A choice that
    touches no part has the report's option.
    """
    possible, sights = _possible(asked, choices, offered, study), [_sight(each, choices, study) for each in asked]
    names = list(possible)
    found: dict[tuple[str, ...], tuple[Specification, list[Specification]]] = {}
    # The report's is the first of the product.
    for options in itertools.product(*possible.values()):
        spec = dict(zip(names, options, strict=True))
        parts = [part for sight in sights if (part := _seen(spec, *sight)) is not None]
        if len(parts) == len(sights):
            spec = own | {name: option for part in parts for name, option in part.items()}
            found.setdefault(tuple(spec.values()), (spec, parts))
    near, far = [], {}
    for key, (spec, parts) in found.items():
        if sum(spec[n] != own[n] for n in names) < 2 or keeps(spec, own, choices):
            near.append(key)
        else:
            far[key] = max(_checksum(part, own) for part in parts)
    kept, last = near, ""
    for key in sorted(far, key=lambda key: (far[key], key)):
        if len(kept) >= limit and far[key] != last:
            break
        kept.append(key)
        last = far[key]
    return [found[key] for key in kept]


def keeps(spec: Specification, own: Specification, choices: Mapping[str, Choice]) -> bool:
    """Whether a specification estimates what the report's `own` does."""
    return all(choices[name].keeps(option) for name, option in spec.items() if option != own[name])


def _checksum(seen: Specification, own: Specification) -> str:
    """Of the options that are not the report's, but for those that are answered `TOGETHER`."""
    apart = {name: option for name, option in seen.items() if option != own[name] and name not in TOGETHER}
    return hashlib.sha256(json.dumps(apart, sort_keys=True).encode()).hexdigest()
