"""Write small stand-ins for the large packages of requirements.txt: stub_wheels.py FILE FOLDER.

Each has the pinned version with "+stub", which pip takes for that version and prefers to it.
"""

import re
import sys
import zipfile
from pathlib import Path

LARGE = ("torch", "scikit-learn", "scipy", "pandas", "h5py", "hdf5plugin")
# What `atlas doctor` asks PyTorch for.
TORCH = """
__version__ = "0+stub"
class version: cuda = None
class cuda:
    is_available = staticmethod(lambda: False)
"""


def write(name: str, version: str, folder: Path) -> None:
    """Write a wheel with one module, which is named as the package."""
    stem = f"{name.replace('-', '_')}-{version}+stub"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        files = {
            f"{name.replace('-', '_')}/__init__.py": TORCH if name == "torch" else "",
            f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\n"
            f"Version: {version}+stub\n",
            f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"
            "Tag: py3-none-any\n",
        }
        record = "".join(f"{path},,\n" for path in [*files, f"{stem}.dist-info/RECORD"])
        for path, text in [*files.items(), (f"{stem}.dist-info/RECORD", record)]:
            wheel.writestr(path, text)


def main() -> None:
    """Write the wheels."""
    requirements, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for line in requirements.read_text().splitlines():
        found = re.match(r"([\w-]+)==([\w.]+)", line)
        if found and found[1] in LARGE:
            write(found[1], found[2], folder)


if __name__ == "__main__":
    main()
