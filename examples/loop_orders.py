"""Compare the 24 loop orders on one model and accelerator: python examples/loop_orders.py."""

import sys

from hwgen.design import LOOP_ORDERS, AcceleratorDesign
from model.space import TransformerDesign
from sim import Workload, evaluate


def main(model: str = "bert-tiny", design: str = "edge", density: float | str = 0.5) -> None:
    """Print latency and energy of each loop order, best energy first."""
    base = AcceleratorDesign.load(design)
    designs = [base.model_copy(update={"loop_order": order}) for order in LOOP_ORDERS]
    workload = Workload(TransformerDesign.load(model), 128, float(density))
    report = evaluate(designs, workload, technology="acceltran-14nm")
    rows = zip(report.energy_pj * 1e-6, report.latency_cycles, LOOP_ORDERS, strict=True)
    for energy_uj, latency_cycles, order in sorted(rows):
        sys.stdout.write(f"{order}  {energy_uj:10.1f} µJ  {latency_cycles:12,.0f} cycles\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
