"""The coursework kit: what students get, what teachers get, and what is said to mistakes.

The ready assignments run in this process, answer by answer. The way through nbgrader's own commands
is taken with one of them, and with submissions that crash, loop or are damaged.
"""

import csv
import re
import sys

import nbformat
import pytest
import sympy as sp
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from coursework import exercises, grading, making, marking
from coursework.__main__ import main
from coursework.autograder import CONFIGURATION, packages
from diffusion_lib import closed_forms as cf
from diffusion_lib.schedule import NoiseSchedule
from diffusion_lib.targets import GaussianMixture
from diffusion_lib.verify import CheckFailed, noise_levels
from notebooks import notebook_paths

STUB = "# Your answer here\nraise NotImplementedError"
READY = ("derive", "sampler", "train")


def mark_of(cell):
    return cell.metadata.get("nbgrader", {})


def points(notebook):
    marks = map(mark_of, notebook.cells)
    return {mark["grade_id"]: mark["points"] for mark in marks if mark.get("grade")}


def wrong(notebook, answers):
    """Run a source notebook with these answers in the place of its own: its errors by question."""
    errors, names = {}, {}
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        mark = mark_of(cell)
        source = cell.source
        if mark.get("solution"):
            source = answers.get(mark["grade_id"].removesuffix("-answer"), source)
        elif not mark and "steps = 300" in source:
            continue  # a run to look at, without points
        try:
            exec(compile(source, "cell", "exec"), names)
        except Exception as error:
            errors[mark.get("grade_id")] = str(error)
    return {name: said for name, said in errors.items() if name in points(notebook)}


# --- The ready assignments ------------------------------------------------------------------------


def test_the_ready_assignments_are_these_three():
    assert making.ready() == sorted(READY)


@pytest.mark.parametrize("name", READY)
def test_a_solution_gets_every_point_and_an_empty_notebook_none(name):
    _, notebook = making.source(name)
    assert sum(points(notebook).values()) == 12
    assert wrong(notebook, {}) == {}
    assert set(wrong(notebook, dict.fromkeys(points(notebook), STUB))) == set(points(notebook))


@pytest.mark.parametrize("name", READY)
def test_the_point_scheme_on_top_is_the_real_one(name):
    _, notebook = making.source(name)
    rows = re.findall(r"^\| (\d) \| .+ \| (\d) \|$", notebook.cells[0].source, re.MULTILINE)
    real = {question[0]: str(number) for question, number in points(notebook).items()}
    assert dict(rows) == real
    assert "Expected time" in notebook.cells[0].source


LOOP = """
def train(network, optimizer, loss, schedule, x_0, steps, generator):
    for _ in range(steps):
        batch = x_0[torch.randint(len(x_0), (128,), generator=generator)]
        t = torch.randint(1, schedule.T + 1, (128,), generator=generator)
        eps = torch.randn(batch.shape, generator=generator, dtype=batch.dtype)
        optimizer.zero_grad()
        loss(network, schedule, batch, t, eps).backward()
        optimizer.step()
"""
WAY = """
def sample(network, kept, x_T, eta, noise, step, dial):
    x, path = x_T, []
    for i in range(kept.T, 0, -1):
        t = int(kept.times[i])
        level_s, level_t = float(kept.alpha_bar[i - 1]), float(kept.alpha_bar[i])
        eps = network(x, torch.full((len(x),), t))
        sigma = dial(eta, level_s, level_t)
        x = step(x, eps, noise() if sigma > 0 else 0 * x, level_s, level_t, sigma)
        path.append(x)
    return path
"""
STEP = """
def step(x_t, eps, z, alpha_bar_s, alpha_bar_t, sigma):
    x_0 = (x_t - math.sqrt(1 - alpha_bar_t) * eps) / math.sqrt(alpha_bar_t)
    return math.sqrt(alpha_bar_s) * x_0 + {}
"""
DIAL = """
def dial(eta, alpha_bar_s, alpha_bar_t):
    variance = (1 - alpha_bar_s) / (1 - alpha_bar_t) * (1 - alpha_bar_t / alpha_bar_s)
    return {}
"""
LOSS = """
def loss(network, schedule, x_0, t, eps):
    level = torch.tensor(schedule.alpha_bar, dtype=x_0.dtype)[t][:, None]
    x_t = level.sqrt() * x_0 + (1 - level).sqrt() * eps
    return {}
"""
ALPHA = "alpha_bar_t / alpha_bar_s"
VARIANCE = f"(1 - alpha_bar_s) / (1 - alpha_bar_t) * (1 - {ALPHA})"
MEAN = (
    "mean = ({} * (1 - alpha_bar_s) * x_t + sp.sqrt(alpha_bar_s) * (1 - "
    + ALPHA
    + ") * x_0) / (1 - alpha_bar_t)"
)
# Assignment, question, a wrong answer, and what the test says to it.
MISTAKES = [
    ("derive", "1-variance", f"variance = sp.sqrt({VARIANCE})", "root of the right answer"),
    ("derive", "1-variance", f"variance = 1 / ({VARIANCE})", "upside down"),
    ("derive", "1-variance", f"variance = 2 * {VARIANCE}", "constant factor 2"),
    ("derive", "1-variance", f"variance = (1 - alpha_bar_s) * (1 - {ALPHA})", "1/(1-"),
    ("derive", "1-variance", "variance = 1 - alpha_bar_s", "not proved"),
    ("derive", "1-variance", "variance = None", "SymPy expression"),
    ("derive", "2-mean", MEAN.format("sp.sqrt(alpha_bar_t)"), "where $\\sqrt{\\alpha_t}$ belongs"),
    ("derive", "4-weights", "a, b = sigma / sp.sqrt(1 - alpha_bar_s), 1", "not proved"),
    (
        "derive",
        "4-weights",
        "b, a = sp.sqrt(1 - sigma**2 / (1 - alpha_bar_s)), sigma / sp.sqrt(1 - alpha_bar_s)",
        "the two are exchanged",
    ),
    ("derive", "5-weight", "weight = sp.Integer(1)", "not proved"),
    (
        "derive",
        "5-weight",
        f"weight = (1 - {ALPHA}) ** 2 / (2 * {ALPHA} * (1 - alpha_bar_t)) / ({VARIANCE}) ** 2",
        "divided by $\\tilde\\beta^2$",
    ),
    (
        "derive",
        "6-counterexample",
        "point = {alpha_bar_t: sp.Rational(3, 4), alpha_bar_s: sp.Rational(1, 2)}",
        "s is the cleaner one",
    ),
    ("sampler", "1-dial", DIAL.format("math.sqrt(eta * variance)"), "The variance is $\\eta"),
    ("sampler", "1-dial", DIAL.format("eta**2 * math.sqrt(variance)"), "not by η²"),
    ("sampler", "1-dial", DIAL.format("eta**2 * variance"), "this is the variance"),
    (
        "sampler",
        "1-dial",
        DIAL.format("eta * math.sqrt(1 - alpha_bar_t / alpha_bar_s)"),
        "is called DDPM",
    ),
    (
        "sampler",
        "1-dial",
        DIAL.format("eta * math.sqrt(variance) if alpha_bar_s < 1 else 0.1"),
        "in the last step",
    ),
    (
        "sampler",
        "2-step",
        STEP.format("math.sqrt(1 - alpha_bar_s) * eps + sigma * z"),
        "leaves out $-\\sigma^2$",
    ),
    (
        "sampler",
        "2-step",
        STEP.format("math.sqrt(1 - alpha_bar_s - sigma**2) * z + sigma * z"),
        "where the predicted noise belongs",
    ),
    (
        "sampler",
        "2-step",
        STEP.format("math.sqrt(1 - alpha_bar_s - sigma**2) * eps"),
        "fresh noise is missing",
    ),
    (
        "sampler",
        "3-loop",
        WAY.replace("kept.alpha_bar[i - 1]", "schedule.alpha_bar[t - 1]"),
        "next kept step",
    ),
    ("sampler", "3-loop", WAY.replace("int(kept.times[i])", "i"), "told the index"),
    ("sampler", "3-loop", WAY.replace("kept.T, 0, -1", "kept.T, 1, -1"), "gives 9 samples"),
    ("sampler", "3-loop", WAY.replace("return path", "return x"), "gives Tensor"),
    (
        "sampler",
        "3-loop",
        WAY.replace("sigma)\n        path", "sigma) + 0.1 * (i == 1) * noise()\n        path"),
        "no noise is added there",
    ),
    (
        "sampler",
        "3-loop",
        WAY.replace("sigma)\n        path", "sigma) + 0.1 * (i == 3)\n        path"),
        "step 8 of 10 is the first wrong one",
    ),
    ("train", "1-loss", LOSS.format("(network(x_t, t) - x_0).square().mean()"), "with the data"),
    ("train", "1-loss", LOSS.format("(network(x_0, t) - eps).square().mean()"), "clean data"),
    ("train", "1-loss", LOSS.format("(network(x_t, t) - eps).square().sum()"), "averaged"),
    (
        "train",
        "1-loss",
        LOSS.format("(network(x_t, t) - eps).abs().mean()"),
        "it must be the square",
    ),
    (
        "train",
        "1-loss",
        LOSS.format("(network(x_t, t) - torch.randn_like(eps)).square().mean()"),
        "noise of its own",
    ),
    (
        "train",
        "1-loss",
        LOSS.replace("(1 - level).sqrt()", "(1 - level)").format(
            "(network(x_t, t) - eps).square().mean()"
        ),
        "multiplies the noise by the variance",
    ),
    ("train", "2-loop", LOOP.replace("optimizer.zero_grad()", "pass"), "zero_grad"),
    ("train", "2-loop", LOOP.replace("optimizer.step()", "pass"), "step() is called 0 times"),
    ("train", "2-loop", LOOP.replace(".backward()", ""), "backward"),
    (
        "train",
        "2-loop",
        LOOP.replace("randint(1, schedule.T + 1", "randint(0, schedule.T"),
        "t = 0",
    ),
    ("train", "2-loop", LOOP.replace("schedule.T + 1", "schedule.T"), "last step T"),
    ("train", "2-loop", LOOP.replace("randn", "rand"), "uniform"),
    (
        "train",
        "2-loop",
        LOOP.replace("shape, generator=generator", "shape"),
        "draw everything",
    ),
    (
        "train",
        "3-evaluation",
        "def evaluate(samples, training, held_out):\n"
        "    metrics = [sliced_wasserstein, energy_distance]\n"
        "    metrics = {metric.__name__: metric for metric in metrics}\n"
        "    return compare(samples, training, metrics=metrics)",
        "copies them looks perfect",
    ),
    (
        "train",
        "4-verdict",
        "def distinguishable(m):\n    return m.value > m.floor",
        "Use the spread",
    ),
]


def rounds():
    """The mistakes of each assignment in rounds, in each at most one for a question.

    The rounds get shorter, so that most questions are also seen right beside another's mistake.
    """
    taken = {}
    for name, question, answer, said in MISTAKES:
        earlier = sum((name, question) == pair[:2] for pair in taken)
        taken[name, question, earlier] = (answer, said)
    for name in READY:
        for number in range(1 + max(n for who, _, n in taken if who == name)):
            mistakes = {q: m for (who, q, n), m in taken.items() if (who, n) == (name, number)}
            yield pytest.param(name, mistakes, id=f"{name}-{number}")


@pytest.mark.parametrize(("name", "mistakes"), list(rounds()))
def test_a_classic_mistake_costs_its_question_alone_and_is_named(name, mistakes):
    _, notebook = making.source(name)
    errors = wrong(notebook, {question: answer for question, (answer, _) in mistakes.items()})
    assert set(errors) == set(mistakes)
    for question, (_, said) in mistakes.items():
        assert said in errors[question]


@pytest.mark.parametrize(
    "variance",
    [
        "1 / (1 / (1 - alpha_bar_s) + ALPHA / (1 - ALPHA))",
        "(1 - alpha_bar_s) - (1 - alpha_bar_s) ** 2 * ALPHA / (1 - alpha_bar_t)",
        "(alpha_bar_s - alpha_bar_t) * (1 / alpha_bar_s - 1) / (1 - alpha_bar_t)",
    ],
)
def test_every_right_form_is_accepted(variance):
    symbols = dict(
        zip(("alpha_bar_s", "alpha_bar_t"), sp.symbols("s t", positive=True), strict=True)
    )
    answer = eval(variance.replace("ALPHA", f"({ALPHA})"), {"sp": sp, **symbols})
    levels = tuple(symbols.values())
    marking.mark_formula(
        "the variance", answer, cf.posterior_variance, *levels, given=noise_levels(*levels)
    )


def test_every_published_slip_of_the_posterior_variance_is_named():
    levels = sp.symbols("s t", positive=True)
    slips = list(marking.published(cf.posterior_variance))
    assert slips
    for sentence, slip in slips:
        with pytest.raises(CheckFailed, match=re.escape(sentence)):
            marking.mark_formula(
                "the variance",
                slip(*levels),
                cf.posterior_variance,
                *levels,
                given=noise_levels(*levels),
            )


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_the_walk_that_slips_are_planted_in_is_ddim(eta):
    full = NoiseSchedule.linear()
    heaps = GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], [[[0.04]], [[0.04]]])
    x_T = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    way = (heaps.model(full), full.strided(6), x_T, eta, 3)
    torch.testing.assert_close(marking.walk(*way), marking.ddim_path(*way), rtol=1e-9, atol=1e-9)


# --- The exercises of the chapters ----------------------------------------------------------------


@pytest.fixture(scope="module")
def clear():
    """What nbgrader takes out of a source notebook, by its own preprocessors."""
    sys.path.append(str(packages()))  # last: nothing of it stands before what is installed here
    from nbgrader.preprocessors import ClearHiddenTests, ClearOutput, ClearSolutions
    from traitlets.config import PyFileConfigLoader

    sys.path.pop()
    settings = PyFileConfigLoader(str(CONFIGURATION)).load_config()
    steps = [kind(config=settings) for kind in (ClearSolutions, ClearHiddenTests, ClearOutput)]

    def cleared(notebook):
        for step in steps:
            notebook, _ = step.preprocess(notebook, {"nbgrader": {}})
        return notebook

    return cleared


def lines_of(cells):
    return {line.strip() for cell in cells for line in cell.source.splitlines()}


@pytest.mark.parametrize("path", notebook_paths(), ids=lambda path: path.stem[:2])
def test_a_student_notebook_keeps_the_exercises_and_leaks_nothing(path, clear):
    chapter = nbformat.read(path, as_version=4)
    solutions = [c for c in chapter.cells if c.source.startswith(exercises.TITLE)]
    source = exercises.assignment(chapter)
    nbformat.validate(source)
    written = lines_of(source.cells)
    student = clear(source)
    shown = lines_of(student.cells)
    # A line that the chapter shows elsewhere is no secret; one of few signs says nothing.
    open_lines = lines_of(c for c in chapter.cells if c not in solutions)
    secret = {line for line in lines_of(solutions) - open_lines if len(line) > 12}
    stays = "\n".join(c.source for c in student.cells if mark_of(c).get("solution"))
    assert secret & written, "the source holds the solutions"
    assert {line for line in secret & shown if line not in stays} == set()
    assert not any("<details" in cell.source or cell.get("outputs") for cell in student.cells)
    texts = [c.source for c in student.cells if c.cell_type == "markdown"][1:]
    numbers = [int(re.match(r"\*\*(\d+)\.", text)[1]) for text in texts]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 3
    assert sum(c.source.endswith(STUB) for c in student.cells) == len(numbers)


def test_what_is_folded_away_beside_an_exercise_stays_away():
    text = "## Exercises\n\n**1. One.** What?\n\n<details>It is 3.</details>\n\n**2. Two.** Why?"
    chapter = new_notebook(
        cells=[
            new_markdown_cell("# A chapter"),
            new_markdown_cell(text),
            new_code_cell(f"{exercises.TITLE}\nprint(2)"),
            new_markdown_cell("<details>So it is.</details>\n\n## The end\n\n**3. No exercise.**"),
        ]
    )
    source = "".join(cell.source for cell in exercises.assignment(chapter).cells)
    assert "What?" in source
    assert "Why?" in source
    assert "It is 3" not in source
    assert "So it is" not in source
    assert "No exercise" not in source


@pytest.mark.parametrize("chapter", ["1", "3", "13"])
def test_the_solutions_of_a_chapter_run_without_the_rest_of_it(chapter):
    _, notebook = making.source(chapter)
    names = {"display": lambda *_: None}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, "cell", "exec"), names)


def test_a_chosen_exercise_brings_along_what_it_needs_of_another_solution(clear):
    name, notebook = making.source("14", [3])
    assert name.endswith("-3")
    names = {"display": lambda *_: None}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, "cell", "exec"), names)
    assert "truth = " in "".join(lines_of(notebook.cells))
    assert "truth = " not in "".join(lines_of(clear(notebook).cells))


def test_a_marked_answer_is_graded_by_the_checks_of_its_solution():
    _, notebook = making.source("13", [1])
    assert wrong(notebook, {}) == {}
    errors = wrong(notebook, {"exercise-1": "period = 100 * sp.pi"})
    assert "not proved" in errors["exercise-1"]


# --- A class, by nbgrader's own commands ----------------------------------------------------------


def submit(folder, student, notebook, answers):
    """A student's file: the release notebook with some answers written into it."""
    for cell in notebook.cells:
        name = mark_of(cell).get("grade_id", "").removesuffix("-answer")
        if mark_of(cell).get("solution") and name in answers:
            cell.source = answers[name]
    nbformat.write(notebook, folder / f"{student}.ipynb")


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return {row["student"]: row for row in csv.DictReader(file)}


def test_a_ready_assignment_from_make_to_the_table(tmp_path, capsys):
    course, folder = tmp_path / "course", tmp_path / "class"
    folder.mkdir()
    assert main(["make", "sampler", "--course", str(course)]) == 0
    assert "release" in capsys.readouterr().out
    release, solution = (
        nbformat.read(course / part / "sampler" / "sampler.ipynb", as_version=4)
        for part in ("release", "solution")
    )
    released = "".join(cell.source for cell in release.cells)
    assert "marking" not in released
    assert "beta = 1 -" not in released
    right = {
        mark_of(c)["grade_id"].removesuffix("-answer"): c.source
        for c in solution.cells
        if mark_of(c).get("solution")
    }
    slip = DIAL.format("eta**2 * math.sqrt(variance)")
    submit(folder, "Cléa O. Núñez", release, {**right, "1-dial": slip, "3-loop": STUB})
    assert main(["grade", "sampler", str(folder), "--course", str(course)]) == 0
    printed = capsys.readouterr().out
    row = table(course / "sampler.csv")["Cléa O. Núñez"]
    assert row["1-dial (3)"] == row["3-loop (5)"] == "0"
    assert row["2-step (4)"] == row["total (12)"] == "4"
    assert "not by η²" in row["what went wrong"]
    assert "3-loop: no answer." in printed


@pytest.fixture
def tiny(tmp_path):
    """A teacher's own assignment, which needs no library and so starts quickly."""
    cells = [
        *exercises.question("sum", "total = 1 + 2", "assert total == 3, 'add them up.'"),
        *exercises.question("product", "product = 2 * 3", "assert product == 6, 'not so.'", 3),
        *exercises.question("words", "# because", points=5),
    ]
    path = tmp_path / "tiny.ipynb"
    kernel = {"kernelspec": dict(exercises.KERNEL)}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), path)
    return path


def test_a_submission_that_cannot_be_graded_gets_a_row_and_the_others_their_points(
    tiny, tmp_path, capsys
):
    course, folder = tmp_path / "course", tmp_path / "class"
    folder.mkdir()
    assert main(["make", str(tiny), "--course", str(course)]) == 0
    released = course / "release" / "tiny" / "tiny.ipynb"

    def release():
        return nbformat.read(released, as_version=4)

    lacking = release()
    lacking.cells = [c for c in lacking.cells if mark_of(c)["grade_id"] != "product"]
    answers = {"sum": "while True:\n    pass", "product": "product = 5", "words": "# I know"}
    submit(folder, "loops and lacks", lacking, answers)
    submit(folder, "exits", release(), {"sum": "import os\nos._exit(1)"})
    (folder / "damaged.ipynb").write_text(released.read_text("utf-8")[:200], "utf-8")
    (folder / "no*body.ipynb").write_text("", "utf-8")
    (folder / "two").mkdir()
    for name in "ab":
        nbformat.write(release(), folder / "two" / f"{name}.ipynb")

    assert main(["grade", "tiny", str(folder), "--course", str(course), "--seconds", "4"]) == 0
    rows = table(course / "tiny.csv")
    row = rows["loops and lacks"]
    assert row["sum (2)"] == row["product (3)"] == "0"
    assert row["words (5)"] == "?"
    assert row["total (10)"] == "0?"
    assert "sum: it does not end within 4 seconds." in row["what went wrong"]
    assert "product: not so." in row["what went wrong"]
    for student, why in {
        "exits": "kills the Python",
        "damaged": "it is no notebook",
        "no*body": "signs that are not allowed",
        "two": "2 notebooks where there should be one",
    }.items():
        assert rows[student]["total (10)"] == ""
        assert why in rows[student]["what went wrong"]
    assert "damaged\n  not graded" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["make", "nothing"], "WHAT is 'nothing'; it must be derive, sampler, train"),
        (["make", "17"], "a chapter's number from 1 to 16"),
        (["make", "derive", "--exercises", "1"], "--exercises is for chapters"),
        (["make", "3", "--exercises", "9"], "names 9; the chapter has the exercises 1 to 5"),
        (["grade", "derive", "nowhere"], "there is no assignment derive"),
        (["grade", "derive", "nowhere", "--seconds", "0"], "--seconds is 0"),
    ],
)
def test_bad_input_gets_one_sentence(arguments, sentence, tmp_path, capsys):
    assert main([*arguments, "--course", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert sentence in said
    assert said.count("\n") == 1


def test_a_damaged_source_is_refused_in_one_sentence(tmp_path, capsys):
    (tmp_path / "mine.ipynb").write_text("{", "utf-8")
    assert main(["make", str(tmp_path / "mine.ipynb"), "--course", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_only_the_folder_of_today_is_graded(tiny, tmp_path):
    course = tmp_path / "course"
    for day, student in (("monday", "ann"), ("friday", "ben")):
        (tmp_path / day).mkdir()
        (tmp_path / day / f"{student}.ipynb").write_bytes(tiny.read_bytes())
        assert grading._collect("tiny", course, tmp_path / day) == ([student], {})


def test_a_total_with_answers_still_to_be_read_says_so():
    row = grading.Row("ann", {"1": "2", "2": grading.BY_HAND})
    assert row.total == "2?"
