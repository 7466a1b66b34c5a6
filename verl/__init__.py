"""Training: GRPO and SFT of a vision-language policy with Ray, vLLM and FSDP2. It knows no task.

Its folder shares the name of a package on PyPI, by design of the project it follows. Two packages of one name cannot
live in one environment, so the other is named here instead of one shadowing the other silently.
"""

from importlib import metadata

for _distribution in metadata.distributions(name="verl"):
    raise ImportError(
        f"The PyPI package verl {_distribution.version} is installed beside this project, whose training package is "
        "also called verl. Remove it from this environment: pip uninstall verl"
    )
