from pathlib import Path

from tests.golden.jobs import jobs, text

for name, job in jobs().items():
    Path(__file__).with_name(f"{name}.yaml").write_text(text(job), encoding="utf-8")
