"""``make bench``: time the heavy helpers beside named peers, in one run, and write benchmarks/RESULTS.md.

Each line is the median of some repeats of both, on simulated cohorts of the demo's size (x1) and of 4 and 16 times as
many people. A peer that would take many minutes is given fewer draws or permutations, of which its time is a multiple;
the table says so. Peers in R are left out where there is no R.
"""

import json
import os
import platform
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse
from scipy.optimize import nnls
from skbio import DistanceMatrix, TreeNode
from skbio.diversity import beta_diversity
from skbio.stats import subsample_counts
from skbio.stats.ordination import pcoa

from helpers import diversity, multiverse, permutation
from helpers.estimates import as_numbers, linear_contrast
from helpers.ingest import build_cohort
from helpers.measures import by_visit, measured
from helpers.quality import without_contaminants
from helpers.simulation.cohort import write_study
from helpers.simulation.truth import Truth
from helpers.study import load_study
from helpers.treatment import arms
from helpers.visits import paired

HERE = Path(__file__).parent
DEPTH, PERMUTATIONS, SCALES = 1000, 9999, (1, 4, 16)


class Line(NamedTuple):
    """One comparison, in seconds."""

    task: str
    swabs: int
    features: int
    ours: float
    peer_name: str
    peer: float
    note: str
    floor: float
    floor_is: str


# --- cohorts ---------------------------------------------------------------------------------------------------------


def write_cohort(scale: int, folder: str | Path) -> None:
    """The files of a cohort like the demo, of several times as many people."""
    population = Truth().population
    patients = {drug: scale * n for drug, n in population.patients.items()}
    more = population.model_copy(update={"patients": patients, "controls": scale * population.controls})
    write_study(Truth().model_copy(update={"population": more}), folder)


@cache
def cohort(scale: int) -> AnnData:
    """The demo cohort (x1), or one of several times as many people; swabs that are deep enough."""
    study = load_study("data/demo")
    with tempfile.TemporaryDirectory() as folder:
        if scale > 1:
            write_cohort(scale, folder)
            study = study.elsewhere(folder)
        swabs, _ = build_cohort(study)
    return swabs[swabs.obs["control_type"].eq("sample") & swabs.obs["depth"].ge(DEPTH)].copy()


@cache
def tree(scale: int) -> TreeNode:
    """The cohort's tree."""
    rooted = diversity.rooted_tree(cohort(scale))
    assert rooted is not None
    return rooted


@cache
def distances(scale: int) -> DistanceMatrix:
    """Square-root Bray-Curtis of one draw."""
    return diversity.square_root(diversity.bray_curtis(cohort(scale), DEPTH, rarefactions=1, seed=1))


# --- clocks ----------------------------------------------------------------------------------------------------------


def median(work: Callable[[], Any], repeats: int) -> float:
    """Median wall time."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def in_r(scale: int, task: str, repeats: int, draws: int) -> dict[str, Any] | None:
    """Seconds and value of a task of peers.R; None where R or the package is missing."""
    if shutil.which("Rscript") is None:
        return None
    swabs = cohort(scale)
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        swabs.X.toarray().astype("<i4").tofile(where / "counts.bin")
        (where / "shape.txt").write_text(f"{swabs.n_obs} {swabs.n_vars} {DEPTH}\n")
        (where / "features.txt").write_text("\n".join(swabs.var_names) + "\n")
        (where / "tree.nwk").write_text(swabs.uns["tree"])
        swabs.obs[["subject", "batch", "visit"]].to_csv(where / "design.tsv", sep="\t", index=False)
        if task == "adonis2":
            np.asarray(distances(scale).data).tofile(where / "dist.bin")
        done = subprocess.run(
            ["Rscript", str(HERE / "peers.R"), folder, task, str(repeats), str(draws)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode:
        print(f"  {task} in R failed: {done.stderr.strip()[-200:]}", file=sys.stderr)
        return None
    answer = json.loads(done.stdout)
    answer["median"] = statistics.median(answer["seconds"])
    return answer


@cache
def multiplications_per_second() -> float:
    """Rate of float64 matrix multiplication, multiply and add counted as two."""
    n = 2000
    a = np.random.default_rng(0).random((n, n))
    return 2 * n**3 / median(lambda: a @ a, 5)


@cache
def minima_per_second() -> float:
    """Rate of the minimum of two float64 arrays that fit the cache, and its sum."""
    a, b, out = np.random.default_rng(0).random((3, 20_000))
    return 1000 * len(a) / median(lambda: [np.minimum(a, b, out=out).sum() for _ in range(1000)], 3)


@cache
def exponentials_per_second() -> float:
    """Rate of exp over a float64 array that fits the cache."""
    a, out = np.random.default_rng(0).random((2, 20_000))
    return 300 * len(a) / median(lambda: [np.exp(a, out=out) for _ in range(300)], 3)


# --- comparisons -----------------------------------------------------------------------------------------------------


def alpha_lines(scale: int) -> list[Line]:
    """Expected alpha diversity against 100 drawn subsamples."""
    swabs, repeats = cohort(scale), 15 if scale == 1 else 3
    ours = median(lambda: diversity.expected_alpha(swabs, DEPTH, tree=tree(scale)), repeats)
    draws = 100 if scale == 1 else 2
    r = in_r(scale, "rarefy", 1 if scale == 1 else 3, draws)
    richness = diversity.expected_alpha(swabs, DEPTH, ["observed_features"]).to_numpy().mean()
    note = "R is not installed"
    if r:
        note = f"mean richness {richness:.3f}, drawn {r['value'][0]:.3f}"
        note += "" if draws == 100 else f"; time of {draws} draws x {100 // draws}"
    # What cannot be avoided: one exponential for each term that float64 can tell from zero (some eight standard
    # deviations to either side) of each distinct pair (reads of the swab, reads of the ASV).
    x = swabs.X.tocoo()
    totals = np.asarray(swabs.obs["depth"])[x.row]
    total, reads = np.unique(np.column_stack([totals, x.data]).astype(np.int64)[x.data > 1], axis=0).T
    variance = DEPTH * reads / total * (1 - reads / total) * (total - DEPTH) / (total - 1)
    terms = np.minimum(np.minimum(reads, DEPTH), 16 * np.sqrt(variance)).sum()
    floor = terms / exponentials_per_second()
    peer = r["median"] * 100 / draws if r else np.nan
    lines = [
        Line(
            "expected alpha, four measures", *swabs.shape, ours, "R: 100 x vegan rrarefy + 3 measures", peer, note,
            floor, f"{terms / 1e6:.1f} M terms, one exp each",
        )
    ]  # fmt: skip
    if scale < 16:
        once = median(lambda: [subsample_counts(row, DEPTH, seed=1) for row in swabs.X.toarray().astype(int)], 3)
        mine = median(lambda: diversity.rarefy(swabs, DEPTH, seed=1), 3)
        lines.append(
            Line("rarefy once", *swabs.shape, mine, "skbio subsample_counts, row by row", once, "", np.nan, "")
        )
    return lines


def permanova_lines(scale: int) -> list[Line]:
    """A factor given a covariate, 9,999 permutations."""
    n = cohort(scale).n_obs
    gram, obs = permutation.products(distances(scale), sparse.eye_array(n, format="csr")), cohort(scale).obs
    permutations = PERMUTATIONS if scale < 16 else 99

    def ours() -> dict[str, Any]:
        return permutation.permanova(gram, obs, "visit", ["batch"], permutations=permutations, seed=1)

    mine = median(ours, 3 if scale == 1 else 1)
    f = ours()["pseudo_f"]
    few = {1: 999, 4: 19}.get(scale)
    r = in_r(scale, "adonis2", 1, few) if few else None
    note = f"{permutations:,} permutations"
    if r:
        note += f"; F differ by {abs(r['value'][0] - f):.1g}; R's time of {few} x {PERMUTATIONS / few:.0f}"
    else:
        note += "; adonis2 would take hours" if scale == 16 else "; R is not installed"
    columns = int(obs["batch"].nunique())
    floor = n**2 * columns * permutations / multiplications_per_second()  # half of G is enough: it is symmetric
    peer = r["median"] * PERMUTATIONS / few if r and few else np.nan
    return [
        Line(
            "PERMANOVA, a factor given another", n, cohort(scale).n_vars, mine, "R: vegan adonis2", peer, note, floor,
            f"n² x {columns} columns x permutations",
        )
    ]  # fmt: skip


def shared_branches(scale: int) -> float:
    """Pairs of swab and branch in common, counted over the branches: both swabs have reads below it."""
    swabs, here = cohort(scale), tree(scale)
    below: dict[int, np.ndarray] = {}
    present = swabs.X.toarray() > 0
    column = {name: present[:, j] for j, name in enumerate(swabs.var_names)}
    pairs = 0.0
    for node in here.postorder(include_self=False):
        tips = [below.pop(id(child)) for child in node.children]
        has = np.logical_or.reduce(tips) if tips else column.get(node.name, np.zeros(len(present), bool))
        below[id(node)] = has
        pairs += float(has.sum()) ** 2 / 2
    return pairs


def unifrac_lines(scale: int) -> list[Line]:
    """Weighted and unweighted UniFrac."""
    swabs, here = cohort(scale), tree(scale)
    counts, ids = swabs.X.toarray().astype(int), list(swabs.obs_names)
    n = len(ids)
    lines = []
    for weighted in (True, False):

        def ours(weighted: bool = weighted) -> DistanceMatrix:
            return diversity.unifrac(swabs, here, weighted=weighted)

        name = "weighted_unifrac" if weighted else "unweighted_unifrac"
        mine = median(ours, 3 if scale == 1 else 1)
        found = ours().data
        if scale == 1:
            began = time.perf_counter()
            theirs = beta_diversity(name, counts, ids, taxa=list(swabs.var_names), tree=here)
            peer, note = time.perf_counter() - began, f"largest difference {abs(theirs.data - found).max():.1g}"
        else:
            peer, note = np.nan, f"skbio and phyloseq would take {scale**2} times as long as x1"
        work = shared_branches(scale)
        branches = sum(1 for _ in here.traverse(include_self=False))
        floor = work / minima_per_second() if weighted else n**2 * branches / multiplications_per_second()
        floor_is = f"{work / 1e6:.0f} M minima" if weighted else "n² x branches"
        lines.append(Line(name, n, swabs.n_vars, mine, "skbio beta_diversity", peer, note, floor, floor_is))
        if weighted and scale == 1 and (r := in_r(scale, "unifrac", 1, 1)):
            mean = found[np.triu_indices(n, 1)].mean()
            gap = f"means {mean:.10g} and {r['value'][0]:.10g}"
            lines.append(Line(name, n, swabs.n_vars, mine, "R: phyloseq UniFrac", r["median"], gap, floor, floor_is))
    return lines


def bray_curtis_lines(scale: int) -> list[Line]:
    """Bray-Curtis over ten draws."""
    swabs, draws = cohort(scale), 10 if scale < 16 else 1
    mine = median(lambda: diversity.bray_curtis(swabs, DEPTH, rarefactions=draws, seed=1), 3 if scale == 1 else 1)
    rarefied = diversity.rarefy(swabs, DEPTH, seed=1).X
    peer = (
        draws * median(lambda: beta_diversity("braycurtis", rarefied, list(swabs.obs_names)), 3 if scale == 1 else 1)
        if scale < 16
        else np.nan
    )
    n, p = swabs.shape
    per_feature = (rarefied > 0).sum(axis=0).astype(float)
    work = draws * (per_feature**2).sum() / 2
    return [
        Line(
            f"Bray-Curtis, mean of {draws} draws", n, p, mine, "skbio beta_diversity on the same draws", peer,
            "the peer's time is without the draws", work / minima_per_second(), f"{work / 1e6:.0f} M minima",
        )
    ]  # fmt: skip


def reference_lines(scale: int) -> list[Line]:
    """Distance to healthy against the way through coordinates."""
    if scale > 1:
        return []
    root, obs = distances(scale), cohort(scale).obs
    subjects = obs["subject"].to_numpy()
    control = (obs["group"].eq("control") & obs["visit"].eq("baseline")).to_numpy()

    def by_coordinates() -> list[float]:
        points = pcoa(root, dimensions=len(obs), warn_neg_eigval=False).samples.to_numpy()
        return [
            float(np.linalg.norm(points[i] - points[control & (subjects != subjects[i])].mean(axis=0)))
            for i in range(len(obs))
        ]

    ours = median(lambda: diversity.distance_to_reference(root, control, subjects), 5)
    peer = median(by_coordinates, 3)
    n, p = cohort(scale).shape
    read = n**2 * 8 / 1e6
    name = "centroids of skbio's pcoa, swab by swab"
    return [Line("distance to healthy", n, p, ours, name, peer, "", np.nan, f"{read:.0f} MB of distances read")]


# --- the report as a whole -------------------------------------------------------------------------------------------

#: What a chapter imports, and the libraries that do its work, without which it cannot.
CHAPTER = "from helpers import claims, diversity, evidence, figures, ingest, measures, narrate, output, permutation"
LIBRARIES = "import anndata, matplotlib.pyplot, numpy, pandas, pydantic, scipy.stats, skbio, skbio.stats.ordination"
STARTED = """
import sys, nbformat
from pathlib import Path
from helpers.run.execution import execute
source, code = Path(sys.argv[1]), sys.argv[2]
nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), source)
execute(source, source.with_name("ran.ipynb"), {})
"""


class Spent(NamedTuple):
    """Wall and processor time in seconds, and the most memory that all processes had at once, in GB."""

    wall: float
    cpu: float
    memory: float


def spent(command: list[str]) -> Spent:
    """Run a command and watch it: what processes share is counted once."""
    mark, peak = f"BENCHMARK={os.urandom(8).hex()}", 0

    def held(process: Path) -> int:
        try:
            if mark.encode() in (process / "environ").read_bytes():
                return int((process / "smaps_rollup").read_text().partition("\nPss:")[2].split()[0])
        except (OSError, IndexError):  # it has ended
            pass
        return 0

    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    name, _, value = mark.partition("=")
    with subprocess.Popen(command, env=os.environ | {name: value}, stdout=subprocess.DEVNULL) as running:
        while running.poll() is None:
            peak = max(peak, sum(map(held, Path("/proc").glob("[0-9]*"))))
            time.sleep(0.1)
    assert not running.returncode, command
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Spent(time.perf_counter() - began, cpu, peak / 2**20)


def report_on(study: str, *settings: str) -> Spent:
    """``make report`` of a study from its beginning."""
    shutil.rmtree(f"reports/{study}", ignore_errors=True)
    return spent(["make", "report", f"STUDY={study}", f"SET={' '.join(settings)}", f"PYTHON={sys.executable}"])


def started(code: str) -> float:
    """Processor time of a notebook with one cell, from the step's start to its end: the least of five."""
    with tempfile.TemporaryDirectory() as folder:
        return min(spent([sys.executable, "-c", STARTED, f"{folder}/one.ipynb", code]).cpu for _ in range(5))


def report_lines() -> list[str]:
    """Wall and processor time of ``make report``, and what starting six kernels with their imports takes of it."""
    without, whole = report_on("demo", "robustness=off"), report_on("demo")
    again = spent(["make", "report", f"PYTHON={sys.executable}"]).wall
    step, libraries, chapter = (started(code) for code in ("", LIBRARIES, CHAPTER))
    return [
        f"`make report` on the demo cohort, environment there: {whole.wall:.0f} s wall, {whole.cpu:.0f} s of "
        f"processor; without the multiverse {without.wall:.0f} s and {without.cpu:.0f} s. With nothing changed: "
        f"{again:.2f} s.",
        f"Starting a chapter takes {chapter:.1f} s of processor: {step:.1f} s the step and its kernel, and "
        f"{chapter - step:.1f} s the imports, {(chapter - step) / (libraries - step):.2f} times what the libraries "
        f"take without which it cannot be (`{LIBRARIES}`: {libraries - step:.1f} s).",
        *multiverse_lines(without.cpu),
    ]


def multiverse_lines(seconds: float) -> list[str]:
    """Specifications a second, beside the package specification_curve, and beside running the notebooks for each.

    `seconds`, the processor time of the report without chapter 6.
    """
    study = load_study("data/demo")
    grid = multiverse.explore(build_cohort(study)[0], study, study.settings, Timed())
    whole = f"{len(grid.found):,} estimates of the demo's claims with 500 permutations each: {Timed.seconds:.0f} s of "
    whole += (
        f"processor, {len(grid.found) / Timed.seconds:.0f} a second; the notebooks would take {seconds:.0f} s for each "
    )
    whole += f"specification, {seconds * len(grid.found) / Timed.seconds:,.0f} times as long."
    # The same least squares: changes of the measures on the arm, given every subset of the covariates.
    swabs = measured(without_contaminants(build_cohort(study)[0], study.settings.alpha)[0], study, study.settings)
    keys = [key for key in swabs.uns["measures"] if swabs.obs[key].notna().all()]
    pairs = {key: arms(paired(by_visit(swabs, keys), key)).dropna(subset=["change", *study.adjust.arm]) for key in keys}
    covariates = [c for c in study.adjust.arm if c != "sex"]
    subsets = [list(s) for n in range(len(covariates) + 1) for s in combinations(covariates, n)]
    ours = median(lambda: [linear_contrast(pairs[k], "change", "treated", s) for k in keys for s in subsets], 1)
    count = len(keys) * len(subsets)
    told = f"{count} least squares with HC3 errors here: {count / ours:.0f} a second"
    try:
        from specification_curve import SpecificationCurve
    except ImportError:
        return [whole, f"{told}. The peer, specification_curve, is not installed."]
    given = as_numbers(pairs[keys[0]][["treated", *covariates]]).reset_index(drop=True)
    wide = pd.DataFrame({k: pairs[k]["change"].to_numpy() for k in keys}).join(given)
    peer = SpecificationCurve(wide, y_endog=keys, x_exog="treated", controls=[*given.columns.drop("treated")])
    theirs = median(peer.fit, 1)
    return [
        whole,
        f"{told}; by specification_curve {version('specification-curve')} {count / theirs:.0f} ({theirs / ours:.1f}×).",
    ]


class Timed(Executor):
    """An executor that does each job at once, and adds up the processor time."""

    seconds = 0.0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Do the job."""
        done: Future[Any] = Future()
        began = time.process_time()
        done.set_result(fn(*args, **kwargs))
        Timed.seconds += time.process_time() - began
        return done


# --- large cohorts ---------------------------------------------------------------------------------------------------

#: Times as many people as the demo has; the last, what is asked what 40,000 swabs would take of.
LARGER, ASKED = (1, 4, 8, 13), 40_000
DASK = """\
A Dask cluster does nothing for such a report, and this is meant: chapters 1 to 5 are one pass of arithmetic over
pairs of swabs, whose result, {matrix:.1f} GB a distance for {asked:,} swabs, every permutation test reads as a whole.
Blocks of a distance are independent and could be sent to workers, yet they would come back over the network to where
the tests are; the cores of one machine share them already. The permutations of a chapter are on one core. What a
cluster does shorten is the multiverse, of which each job is by itself: with `DASK_SCHEDULER_ADDRESS` set, chapter 6 and
`make validate` run there, and give the same bytes (a test says so)."""


def large_lines() -> list[str]:
    """The report without the multiverse of larger cohorts, and of very many reads, from beginning to end."""
    took, swabs = {}, {}
    for scale in LARGER:
        with study_in(f"benchmark{scale}") as folder:
            write_cohort(scale, folder)
            took[scale] = report_on(folder.name, "robustness=off")
            found, _ = build_cohort(load_study(folder))
            swabs[scale] = int((found.obs["control_type"].eq("sample") & found.obs["depth"].ge(DEPTH)).sum())
            print(f"  x{scale}, {swabs[scale]:,} swabs: {took[scale]}", flush=True)
    n = np.array([swabs[scale] for scale in LARGER], float)
    law = {what: fitted(n, np.array([getattr(took[s], what) for s in LARGER])) for what in Spent._fields}
    rows = [
        f"| {swabs[s]:,} | {t.wall:.0f} s | {t.cpu:.0f} s | {t.memory:.1f} GB | {t.cpu / pairs(s):.1f} × |"
        for s, t in took.items()
    ]
    wall, cpu, memory = (float(at(law[what], ASKED)) for what in Spent._fields)
    shallow, deep = (reads_times(times) for times in (1, 10**9))
    last = LARGER[-1]
    return [
        f"`make report` with `robustness=off`, on {cores()}, of cohorts like the demo's. The floor is the "
        "minima that its distances cannot do without (Bray-Curtis of ten draws, of shares, and weighted UniFrac in two "
        f"chapters); for {swabs[last]:,} swabs {pairs(last):.0f} s of processor.",
        "\n".join(
            [
                "| swabs | wall | processor | memory at most | processor / floor |",
                "|---|---|---|---|---|",
                *rows,
                f"| {ASKED:,}, extrapolated | {wall / 60:.0f} min | {cpu / 60:.0f} min | {memory:.0f} GB | |",
            ]
        ),
        f"The law that was fitted: a + b n + c n², none below 0. Processor: {told(law['cpu'], 's')}. Memory: "
        f"{told(law['memory'], 'GB')}. It is extrapolated {ASKED / n[-1]:.1f} times beyond what was measured.",
        " ".join(DASK.format(asked=ASKED, matrix=8 * ASKED**2 / 1e9).split("\n")),
        f"52 swabs of the demo: {shallow.cpu:.0f} s of processor, {shallow.memory:.2f} GB. With each read so often "
        f"that a swab has 2·10⁹: {deep.cpu:.0f} s ({deep.cpu / shallow.cpu:.1f} ×), {deep.memory:.2f} GB "
        f"({deep.memory / shallow.memory:.2f} ×).",
    ]


@contextmanager
def study_in(name: str) -> Iterator[Path]:
    """A study's folder in data/ with the demo's study.yaml, until it and its report are no longer needed."""
    folder = Path("data", name)
    folder.mkdir()
    try:
        demo = Path("data/demo/study.yaml").read_text(encoding="utf-8")
        (folder / "study.yaml").write_text(re.sub(r"(?m)^ *sha256:.*\n", "", demo), encoding="utf-8")
        yield folder
    finally:
        shutil.rmtree(folder)
        shutil.rmtree(Path("reports", name), ignore_errors=True)


def fitted(n: np.ndarray, y: np.ndarray) -> np.ndarray:
    """a, b and c of y = a + b n + c n², none below 0, where relative errors are alike."""
    return nnls(n[:, None] ** np.arange(3) / y[:, None], np.ones(len(y)))[0]


def at(law: np.ndarray, n: float) -> float:
    """What the law says of so many swabs."""
    return float(law @ np.array([1, n, n**2], float))


def told(law: np.ndarray, unit: str) -> str:
    """The law for thousands of swabs."""
    a, b, c = law * np.array([1, 1e3, 1e6])
    return f"{a:.2g} {unit} + {b:.2g} {unit} a thousand swabs + {c:.2g} {unit} a thousand swabs squared"


@cache
def pairs(scale: int) -> float:
    """Seconds that the minima of the report's distances take at the rate measured here."""
    rarefied = diversity.rarefy(cohort(scale), DEPTH, seed=1)
    drawn = ((rarefied.X > 0).sum(axis=0).astype(float) ** 2).sum() / 2
    return float((11 * drawn + 2 * shared_branches(scale)) / minima_per_second())


def reads_times(times: int) -> Spent:
    """The report of 52 swabs of the demo, each read so often, as long as a swab has no more than 2·10⁹ reads."""
    with study_in("benchmark-deep") as folder:
        swabs = cohort(1)
        visits = swabs.obs.groupby("subject", observed=True)["visit"].transform("nunique")
        people = swabs.obs[visits.eq(2)].drop_duplicates("subject")
        people = people.groupby(people["arm"].cat.add_categories("none").fillna("none"), observed=True).head(9)
        chosen = swabs[swabs.obs["subject"].isin(people["subject"])][:52]
        counts = pd.DataFrame(chosen.X.toarray().astype(np.int64), chosen.obs_names, chosen.var_names)
        often = (2 * 10**9 // counts.sum(axis=1)).clip(upper=times)
        metadata = pd.read_csv("data/demo/metadata.tsv", sep="\t", dtype=str, keep_default_na=False)
        metadata[metadata["swab_id"].isin(counts.index)].to_csv(folder / "metadata.tsv", sep="\t", index=False)
        counts.mul(often, axis=0).T.to_csv(folder / "counts.tsv", sep="\t", index_label="feature")
        for name in ("taxonomy.tsv", "tree.nwk"):
            shutil.copy(f"data/demo/{name}", folder)
        yaml = (folder / "study.yaml").read_text(encoding="utf-8")
        yaml = yaml.replace("counts.biom", "counts.tsv").replace("format: biom", "format: text")
        (folder / "study.yaml").write_text(yaml, encoding="utf-8")
        return report_on(folder.name, "robustness=off")


# --- the table -------------------------------------------------------------------------------------------------------


def machine() -> str:
    """Processor, cores, memory, versions."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ", ".join(f"{p} {version(p)}" for p in ("numpy", "scipy", "scikit-bio"))
    r = subprocess.run(
        ["Rscript", "-e", 'cat(paste0("R ", getRversion(), ", vegan ", packageVersion("vegan"), ", phyloseq ", '
         'packageVersion("phyloseq")))'],
        capture_output=True, text=True, check=False,
    ).stdout if shutil.which("Rscript") else "no R"  # fmt: skip
    return f"{model}, {cores()}, {memory:.0f} GB; Python {platform.python_version()}, {packages}; {r}"


def cores() -> str:
    """Cores, and what else used them: with more than one process a core, times are longer than they need to be."""
    return f"{os.cpu_count()} cores (ours and others', {os.getloadavg()[2]:.1f} processes ran or waited at a time)"


def shown(line: Line) -> str:
    """A row of the table."""
    known = not np.isnan(line.peer)
    peer = f"{line.peer:,.2f} s" if known else "–"
    ratio = f"**{line.peer / line.ours:,.0f}×**" if known and line.peer >= 10 * line.ours else "–"
    if known and line.peer < 10 * line.ours:
        ratio = f"{line.peer / line.ours:.1f}×"
    floor = "–" if np.isnan(line.floor) else f"{line.floor:.3g} s ({line.ours / line.floor:.1f} ×): {line.floor_is}"
    cells = (
        line.task, f"{line.swabs:,} × {line.features:,}", f"{line.ours:.3f} s", line.peer_name, peer, ratio, line.note,
        floor,
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


WHOLE, LARGE = "## The report as a whole", "## Large cohorts"


def main() -> None:
    """Measure everything and write RESULTS.md; with the argument ``report`` or ``large``, only that part."""
    results = HERE / "RESULTS.md"
    if sys.argv[1:]:
        before, _, rest = results.read_text(encoding="utf-8").partition(WHOLE)
        report, _, large = rest.partition(LARGE)
        parts = [report.strip(), large.strip()]
        for i, (name, measure) in enumerate((("report", report_lines), ("large", large_lines))):
            parts[i] = "\n\n".join(measure()) if name in sys.argv[1:] else parts[i]
        results.write_text(f"{before}{WHOLE}\n\n{parts[0]}\n\n{LARGE}\n\n{parts[1]}\n", encoding="utf-8")
        return
    lines: list[Line] = []
    for scale in SCALES:
        for measure in (alpha_lines, permanova_lines, unifrac_lines, bray_curtis_lines, reference_lines):
            print(f"x{scale}: {measure.__doc__}", flush=True)
            for line in measure(scale):
                lines.append(line)
                print("  " + shown(line), flush=True)
        for cached in (cohort, tree, distances):
            cached.cache_clear()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    heads = ("task", "swabs × ASVs", "here", "peer", "peer's time", "ratio", "remarks", "floor")
    text = [
        "# Speed",
        "",
        "Written by `make bench`; all times of a part are of one run on one machine, medians of repeats.",
        "",
        f"Machine: {machine()}. One thread for BLAS. Matrix multiplication: {multiplications_per_second() / 1e9:.0f} "
        f"GFlop/s; minimum and sum: {minima_per_second() / 1e9:.2f} G/s; "
        f"exp: {exponentials_per_second() / 1e9:.2f} G/s.",
        "",
        "The floor is the arithmetic that the method cannot do without, at the rate measured here.",
        "",
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
        *map(shown, lines),
        "",
        f"Peak memory of the whole run: {peak:.1f} GB.",
        "",
        "\n\n".join([WHOLE, *report_lines(), LARGE, *large_lines()]),
    ]
    results.write_text("\n".join(text) + "\n", encoding="utf-8")
    print(f"written: {results}")


if __name__ == "__main__":
    main()
