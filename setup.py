"""Packages veason, verl, grpo_reward, eval and training_data_construction as the distribution `open-veason-r1`."""

from pathlib import Path

from setuptools import find_namespace_packages, setup

PACKAGES = ("veason", "verl", "grpo_reward", "eval", "training_data_construction")

setup(
    name="open-veason-r1",
    version="0.1.0",
    description="Video reasoning segmentation by reinforcement learning: think, choose the keyframe, ground, track.",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_namespace_packages(
        include=[f"{name}{rest}" for name in PACKAGES for rest in ("", ".*")],
    ),
    entry_points={"console_scripts": ["veason = veason.cli:main"]},
    package_data={"": ["*.yaml", "*.json", "*.txt", "*.safetensors", "*.jinja", "*.html", "*.css", "*.js"]},
    # Dependencies are in requirements.txt (GPU) and requirements-cpu.lock (CPU): torch and vLLM have separate builds.
)
