"""What pyproject.toml cannot say of a build: that it has this tree's files alone, and the site's values among them."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildAnew(build_py):
    """Leaves nothing of an earlier build: a module that is gone would be in the package, and in its keys."""

    def run(self) -> None:
        """Copy the packages, and what `values_file` of pipelines/places.py reads where there is no checkout."""
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()
        if not self.editable_mode:
            folder = Path(self.build_lib, "pipelines", "site")
            folder.mkdir()
            shutil.copyfile(Path("manifests", "site", "values.yaml"), folder / "values.yaml")


setup(cmdclass={"build_py": BuildAnew})
