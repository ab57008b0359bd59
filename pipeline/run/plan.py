"""``eval``: start the processes, say what they are, and run each benchmark that the configuration names."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from collavo.checkpoint.published import has_published_sizes
from configs.common.nested import flattened
from configs.common.words import shown
from datasets.roots import data_roots

from ..base import EngineSource, LoadsAhead
from ..benchmarks import select_pipeline
from ..models.choose import make_source
from ..results.browse.run_report import report_run
from ..results.judging import judge_of, make_judge, needs_judge
from ..results.report import RESULTS
from ..results.summary import show_summary
from ..runtime.console import say, warn
from ..runtime.errors import RunError
from ..runtime.files import make_folder
from ..runtime.launch import (
    JoinError,
    check_environment,
    describe,
    device_of,
    is_main,
    let_main_speak,
    place_of_process,
    sharding_asked,
    start_accelerator,
)
from ..runtime.launcher_watch import end_without_launcher, watch_launcher
from ..runtime.provenance import difference_in_words, git_commit, libraries
from ..runtime.session import USER_ERRORS, AgreedError, Session, exit_at_once, report_failure
from .loading import Task, load_tasks
from .task import run_task

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

    from datasets.declaration import Benchmark
    from datasets.evaluation.judges.options import JudgeConfig

    from ..catalog import Catalog
    from ..config import EvalConfig

INTERRUPTED = 130
"""Exit code after Ctrl-C."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A whole run.

    Attributes:
        config: resolved.
        tasks: one per benchmark, in order.
        roots: dataset folders.
        judge: whom to ask where a benchmark needs a judge; None for nobody.
        model: its kind, name and profile, for results.
        another_model: why figures are not set next to published ones, see `another_model`; "" where they are.
    """

    config: EvalConfig
    tasks: Sequence[Task]
    roots: Sequence[Path]
    judge: JudgeConfig | None = None
    model: Mapping[str, str] = field(default_factory=dict)
    another_model: str = ""

    @property
    def save_dir(self) -> Path:
        """Where results go."""
        return Path(self.config.SAVE_DIR).expanduser()


def evaluate(config: EvalConfig, catalog: Catalog) -> int:
    """Run the benchmarks that ``DATASETS.TEST`` names.

    Args:
        config: resolved.
        catalog: of the declared benchmarks.

    Returns: the exit code, see `run_plan`.
    """
    try:
        plan = make_plan(config, catalog)
    except USER_ERRORS as error:
        if is_main(os.environ):
            say(f"error: {error}")
        let_main_speak(os.environ)
        return 1
    if is_main(os.environ) and asks_model(task.pipeline.declaration for task in plan.tasks):
        say(model_in_words(config))
    return run_plan(plan, lambda device: make_source(config, device))


def model_in_words(config: EvalConfig) -> str:
    """The model and its profile, for the start of a run."""
    model = config.MODEL
    place = f" at {model.BASE_URL}" if model.NAME == "endpoint" and model.BASE_URL else ""
    return f"model:        {model.NAME}, {shown(model.PATH)}{place}\n{config.profile.described()}"


def make_plan(config: EvalConfig, catalog: Catalog) -> Plan:
    """What a configuration asks for. Loads no torch and opens no data.

    Raises:
        ConfigError: an unknown dataset.
        RunError: a pipeline class that does not exist or belongs to another benchmark, or no checkpoint.
        DataError: no dataset folder is known, or no judge where one must be.
    """
    chosen = catalog.select(config.DATASETS.TEST)
    if config.EVAL.UNTAUGHT:
        catalog.select(",".join(config.EVAL.UNTAUGHT))  # a name that is none is an error
    if not config.MODEL.PATH and asks_model(chosen):
        wanted = "the model's name on the server" if config.MODEL.NAME == "endpoint" else "the checkpoint's directory"
        raise RunError(f"MODEL.PATH, or RESUME_FROM: set it to {wanted}")
    save_dir = Path(config.SAVE_DIR).expanduser()
    names = [name.strip() for name in config.DATASETS.TEST.split(",")]
    tasks = []
    for benchmark in chosen:
        pipeline = select_pipeline(config.PIPELINE, config.declared(benchmark))
        size = config.sections[benchmark.section].TEST.BATCH_SIZE_TOTAL
        folder, optional = save_dir / benchmark.dataset, benchmark.dataset not in names
        search = config.profile.search()
        tasks.append(Task(pipeline=pipeline, batch_size_total=size, folder=folder, optional=optional, search=search))
    judged = any(needs_judge(task.pipeline.declaration) for task in tasks)
    return Plan(
        config=config,
        tasks=tasks,
        roots=data_roots(config.DATASETS.ROOT, os.environ),
        judge=judge_of(config.JUDGE, os.environ) if judged else None,
        model={"kind": config.MODEL.NAME, "name": config.MODEL.PATH, "profile": config.profile.name},
        another_model=another_model(config),
    )


def another_model(config: EvalConfig) -> str:
    """Why figures are not those of CoLLaVO-7B, whose published ones they would stand next to; "" where they may be."""
    if config.EVAL.PUBLISHED == "never":
        return "another model by its configuration (EVAL.PUBLISHED never)"
    if not config.WEIGHT:
        return "random weights (WEIGHT False)"
    if config.MODEL.NAME != "collavo":
        return f"another model than CoLLaVO-7B: {config.MODEL.NAME}, {shown(config.MODEL.PATH)}"
    if config.RESUME_FROM and not has_published_sizes(Path(config.RESUME_FROM).expanduser()):
        return "another model than CoLLaVO-7B by its sizes"
    return ""


def asks_model(benchmarks: Iterable[Benchmark]) -> bool:
    """Whether any of the benchmarks needs a checkpoint, rather than the segmenter alone."""
    return not all(benchmark.measures_maps for benchmark in benchmarks)


def run_plan(plan: Plan, make_source: Callable[[torch.device], EngineSource]) -> int:
    """Run every task of a plan, whatever answers.

    Args:
        plan: see `Plan`.
        make_source: from this process's device to its engine.

    Returns: the exit code: 0, 1 after an error that was shown, 130 after an interruption. Where several processes run
        it does not return, except after an error on which all agree: the process ends at once.
    """

    def work(folders: list[Path]) -> None:
        accelerator = _start(plan, int(os.environ.get("WORLD_SIZE", "1")))
        session = make_session(plan, accelerator)
        with session.sole_use([plan.save_dir, *(task.folder for task in plan.tasks)]):
            session = with_judge(plan, session)
            source = make_source(device_of(accelerator))
            failures = run_tasks(plan, source, session, lambda task: folders.append(task.folder))
            finish_trackers(accelerator)
        if lacking := [task.dataset for task in plan.tasks if not task.optional and task.folder not in folders]:
            failures.append(f"left out, as said above: {', '.join(lacking)}; the other benchmarks are done")
        if failures:
            raise AgreedError("\n".join(failures))

    return run_guarded(work, "interrupted; the answers so far are kept, and the same command goes on from there")


def finish_trackers(accelerator: Accelerator) -> None:
    """Close trackers and let no process end before the main one has written everything: it would look like a failure.

    All processes must call it.
    """
    for tracker in accelerator.trackers:
        tracker.finish()
    accelerator.wait_for_everyone()


def run_guarded(work: Callable[[list[Path]], int | None], interrupted: str) -> int:
    """Do a process's work, and end as a process of several must.

    Args:
        work: may add folders to the list it is given: the last one gets the log of an unexpected error. Gives an exit
            code, or None for 0.
        interrupted: what to say after Ctrl-C.

    Returns: the exit code, see `run_plan`.
    """
    watch_launcher(os.environ)
    folders: list[Path] = []
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    try:
        code = work(folders)
    except AgreedError as error:
        if rank == 0:
            say(f"error: {error}")
        let_main_speak(os.environ)
        return 1
    except KeyboardInterrupt:
        if rank == 0:
            say(interrupted)
        return _end(INTERRUPTED, world)
    except Exception as error:  # noqa: BLE001 - the last place that can say why this process ends
        end_without_launcher()
        report_failure(error, folders[-1] if folders else None, rank)
        return _end(1, world)
    return _end(code or 0, world)


def run_tasks(
    plan: Plan, source: EngineSource, session: Session, begins: Callable[[Task], None] = lambda task: None
) -> list[str]:
    """Run every task of a plan with one engine. All processes must call it.

    Args:
        plan: see `Plan`.
        source: of the engine.
        session: of this process.
        begins: called before every task.
    Returns: why benchmarks failed of which most or all questions have no answer, alike on every process.

    Raises:
        AgreedError: files are missing, nothing can be scored, or a task cannot start.
        DataError, RunError, SampleError: see `run_task`.
    """
    with _loading_ahead(plan, source, session):
        return _run_loaded(plan, source, session, begins)


def _run_loaded(plan: Plan, source: EngineSource, session: Session, begins: Callable[[Task], None]) -> list[str]:
    """See `run_tasks`."""
    found, missing = load_tasks(plan.tasks, session)
    if session.is_main:
        for name, why in missing.items():
            warn(f"{name} is left out: {why}")
    outcomes = []
    for loaded in found:
        begins(loaded.task)
        outcomes.append(run_task(loaded, source, session))
    if session.is_main and len(plan.tasks) > 1:
        results = [outcome.results for outcome in outcomes if outcome.results is not None]
        failed = {outcome.dataset: outcome.failure for outcome in outcomes if outcome.failure}
        show_summary(results, missing, failed, plan.save_dir)
    if plan.config.EVAL.REPORT and session.is_main:
        report_run({item.task.folder: item.records for item in found}, plan.save_dir)
    return [outcome.failure for outcome in outcomes if outcome.failure]


def _loading_ahead(plan: Plan, source: EngineSource, session: Session) -> AbstractContextManager[None]:
    """Load the engine while annotations are read, if it will surely be asked: the first benchmark has no results yet.

    All processes must call it; the main one decides, since only its folder has results.
    """
    first = plan.tasks[0]
    asked = not first.pipeline.declaration.measures_maps and not (first.folder / RESULTS).exists()
    if session.gather(asked)[0] and isinstance(source, LoadsAhead):
        return source.loading_ahead()
    return nullcontext()


def _start(plan: Plan, world: int) -> Accelerator:
    """Check the launch, say what starts before the libraries are loaded, and join the processes.

    Raises:
        AgreedError: the launch cannot be served, or wandb is missing; either looks the same from every process.
        JoinError: other processes did not start.
    """
    try:
        check_environment(os.environ)
        if plan.config.WANDB and importlib.util.find_spec("wandb") is None:
            raise RunError("WANDB True needs the package wandb (pip install wandb), or set WANDB False")
        if is_main(os.environ):
            names = ", ".join(task.pipeline.declaration.dataset for task in plan.tasks)
            say(f"evaluating {names} with {world} process{'es' if world > 1 else ''}; loading libraries ...")
        return start_accelerator(plan.config.EVAL.TIMEOUT_HOURS, "wandb" if plan.config.WANDB else None, os.environ)
    except JoinError:
        raise
    except RunError as error:
        raise AgreedError(str(error)) from None


def _end(code: int, world: int) -> int:
    """Leave without tearing the process group down: its threads can abort a process that has done its work."""
    if world > 1:
        exit_at_once(code)
    return code


def make_session(plan: Plan, accelerator: Accelerator) -> Session:
    """What this process knows of the run; says the layout. All processes must call it.

    Raises:
        AgreedError: the tracker cannot be started.
    """
    from accelerate.utils import gather_object

    config, places = plan.config, list(gather_object([place_of_process(accelerator)]))
    about = {"config_hash": config.config_hash, "git_commit": git_commit(), "model": dict(plan.model), **libraries()}
    if accelerator.process_index == 0:
        say(describe(places))
        if note := difference_in_words(about):
            say(f"  {note}")
        if sharding := sharding_asked(os.environ):
            say(f"  note: {sharding} shards a model that trains; evaluation keeps a whole model on every process")
    session = Session(
        accelerator=accelerator,
        options=config.EVAL,
        roots=plan.roots,
        devices=[where.device for where in places],
        about=about,
        config_yaml=config.resolved_yaml,
        tracked=config.WANDB,
        another_model=plan.another_model,
        brief=len(plan.tasks) > 1,
    )
    if config.WANDB:
        session.together(lambda: _start_wandb(plan, accelerator))
    return session


def with_judge(plan: Plan, session: Session) -> Session:
    """Reach the judge before anything is asked, if a benchmark needs one; on the main process.

    Raises:
        AgreedError: it cannot be used.
    """
    options = plan.judge
    if options is None:
        return session
    return replace(
        session, judge=session.together(lambda: make_judge(options, os.environ) if session.is_main else None)
    )


def _start_wandb(plan: Plan, accelerator: Accelerator) -> None:
    """Start the tracker on the main process.

    Raises:
        RunError: it needs a login or a network that is not there.
    """
    import wandb

    make_folder(plan.save_dir)
    settings = flat(yaml.safe_load(plan.config.resolved_yaml))
    run = {"name": plan.config.NAME, "dir": str(plan.save_dir)}
    try:
        accelerator.init_trackers("CoLLaVO", config=settings, init_kwargs={"wandb": run})
    except wandb.Error as error:
        raise RunError(f"WANDB True: {error} (WANDB_MODE=offline needs no account)") from error


def flat(settings: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """Nested settings under dotted names, as every tracker takes them; what is no number becomes a text."""
    return {
        name: value if isinstance(value, (bool, int, float, str)) else str(value)
        for name, value in flattened(settings).items()
        if value != {}
    }
