"""Search pairs for a task, generate the knee: python examples/run_search.py [RUN [EVALUATIONS]]."""

import sys

from hwgen.emit import generate
from search import CoDesign


def main(folder: str = "runs/first", evaluations: int | str = 60) -> None:
    """Search, print the front, and write the knee's Verilog with jobs from its trained model."""
    problem = CoDesign(task="movie-sentences", space="demo", seed=1)
    run = problem.run(folder, evaluations=int(evaluations))
    sys.stdout.write(f"{run.front}\n")
    knee = run.pick("knee")
    generate(knee.accelerator, f"{folder}/knee", jobs=knee.jobs())
    sys.stdout.write(f"{folder}/knee: verify it with: transcode verify {folder}/knee\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
