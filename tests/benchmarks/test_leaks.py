from benchmarks import leaks


def test_copies_are_found_and_no_others() -> None:
    """Few of the pictures that the whole measurement has."""
    rows = leaks.rows_of(200, 0, None)
    assert [row["name"] for row in rows if row["met"] is False] == []
    assert {row["name"]: row["value"] for row in rows}["of all others taken, of 10,000"] == 0.0
    assert sum(str(row["name"]).endswith(": found") for row in rows) == 5
