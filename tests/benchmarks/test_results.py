"""From measurements to rows, ratios, verdicts and tables; nothing here asserts a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.plan import CLIENTS, OPERATIONS, SIZES, message_count
from benchmarks.report import replace_block, result_tables, target_table
from benchmarks.results import Row, load_rows, rows_of, save_rows, spread_of, targets_of
from benchmarks.run import in_order, read_options


def row(client: str, rate: float, cpu: float, operation: str = "publish", size: int = 100) -> Row:
    return Row(client, operation, size, rate, cpu)


def test_a_row_is_the_median_of_its_rounds() -> None:
    """One slow round does not move the published number; the spread shows it."""
    runs = [row("txmsg", 50_000, 2.0), row("txmsg", 10_000, 9.0), row("txmsg", 60_000, 1.0), row("pika-select", 1, 1)]
    rows = rows_of(runs)
    assert rows == [row("txmsg", 50_000, 2.0), row("pika-select", 1, 1)]
    assert spread_of(runs, rows[0]) == 1.0


def test_rows_survive_the_file(tmp_path: Path) -> None:
    """benchmarks/results.json is a list of rows with exactly the five documented keys."""
    rows = [row("txmsg", 50_000.5, 2.125), row("py-amqp", 1.0, 1.0, "consume-no-ack", 65536)]
    save_rows(rows, tmp_path / "rows.json")
    assert load_rows(tmp_path / "rows.json") == rows


def test_targets_compare_with_pika_the_fastest_peer_and_the_c_client() -> None:
    """Each verdict follows from the rows; a peer's rate just above ours is "not met"."""
    rows = [
        row("txmsg", 100.0, 1.0),
        row("pika-twisted", 50.0, 6.0),
        row("aio-pika", 100.1, 60.0),
        row("rabbitmq-c", 200.0, 0.5),
    ]
    cpu, peer, limit = targets_of(rows)
    assert cpu.is_met
    assert cpu.value == pytest.approx(1 / 6)
    assert "aio-pika" in peer.text
    assert not peer.is_met
    assert "rabbitmq-c" in limit.text
    assert not limit.is_met
    assert limit.value == 0.5
    assert "1 of 3 met" in target_table([cpu, peer, limit])


def test_every_target_is_judged_from_a_whole_run() -> None:
    """A whole run leaves no target of the project without a verdict."""
    rows = [row(client, 1.0, 1.0, name, size) for client in CLIENTS for name in OPERATIONS for size in SIZES]
    texts = [target.text for target in targets_of(rows)]
    assert len(texts) == len(set(texts)) == 8 + 1 + 10 + 8


def test_tables_give_ratios_to_txmsg() -> None:
    """The ratio columns are the value divided by txmsg's."""
    rows = [row("txmsg", 1000.0, 2.0), row("pika-twisted", 500.0, 8.0)]
    table = result_tables(rows, rows)
    cells = [cell.strip() for cell in table.splitlines()[-1].split("|")]
    assert cells[1:-1] == ["pika-twisted", "500", "0.50", "8.00", "4.00", "0 %"]


def test_a_table_without_txmsg_has_no_ratios() -> None:
    """Leaving txmsg out by --clients is allowed."""
    rows = [row("pika-twisted", 500.0, 8.0)]
    cells = [cell.strip() for cell in result_tables(rows, rows).splitlines()[-1].split("|")]
    assert cells[1:-1] == ["pika-twisted", "500", "-", "8.00", "-", "0 %"]


def test_replacing_a_block_leaves_the_rest_of_the_page(tmp_path: Path) -> None:
    """The prose around a generated block is kept; a page without the block is an error."""
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- begin x: generated -->\nold\n<!-- end x -->\nafter\n")
    replace_block(page, "x", "new\n")
    assert page.read_text() == "before\n<!-- begin x: generated -->\nnew\n<!-- end x -->\nafter\n"
    with pytest.raises(ValueError, match="no block 'y'"):
        replace_block(page, "y", "")


def test_the_published_page_has_every_generated_block() -> None:
    """docs/benchmarks.md keeps the marks that the runner writes between."""
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text()
    for name in ("environment", "targets", "results", "memory"):
        assert page.count(f"<!-- begin {name}: generated -->") == 1
        assert page.count(f"<!-- end {name} -->") == 1


def test_rows_are_published_in_the_order_of_the_plan() -> None:
    """The order in which the clients took turns does not show."""
    rows = [row("rabbitmq-c", 1, 1), row("txmsg", 1, 1, "consume-ack"), row("txmsg", 1, 1, size=65536)]
    assert in_order([*rows, row("txmsg", 1, 1)]) == [row("txmsg", 1, 1), rows[0], rows[2], rows[1]]


def test_options(capsys: pytest.CaptureFixture[str]) -> None:
    """Unknown names and unbounded rounds are refused; --quick is one round."""
    options = read_options(["--clients", "py-amqp,txmsg", "--quick", "--rounds", "9"])
    assert options.clients == ["txmsg", "py-amqp"]
    assert options.rounds == 1
    for wrong in (["--clients", "pika"], ["--operations", "get"], ["--rounds", "1000"], ["--sizes", "x"]):
        with pytest.raises(SystemExit):
            read_options(wrong)
    assert "'pika' is not among" in capsys.readouterr().err


def test_message_counts_are_bounded() -> None:
    """A run of large messages stays far below the memory alarm of a private node."""
    for size in SIZES:
        assert message_count(size, quick=True) < message_count(size, quick=False)
        assert message_count(size, quick=False) * size < 512 * 1024 * 1024
