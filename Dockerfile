# syntax=docker/dockerfile:1
# The GPU set of requirements.txt on CUDA 13, as a user without root. Build and run:
#   docker build --tag open-veason-r1 .
#   docker run --rm --gpus all --ipc host open-veason-r1 veason --help
# The CPU set: docker build --build-arg BASE=ubuntu:24.04 --build-arg REQUIREMENTS=requirements-cpu.lock .
ARG BASE=nvidia/cuda:13.0.1-cudnn-runtime-ubuntu24.04
# hadolint ignore=DL3006  # the tag is in the argument
FROM ${BASE}

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# gcc and the headers: Triton compiles its launchers when a kernel is first used.
# hadolint ignore=DL3008  # the base's own versions
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt,sharing=locked \
    rm -f /etc/apt/apt.conf.d/docker-clean && apt-get update && \
    apt-get install --yes --no-install-recommends python3 python3-dev python3-venv gcc g++ make git

ARG USER_ID=10001
RUN useradd --create-home --uid ${USER_ID} veason && mkdir /app && chown veason /app
USER ${USER_ID}
WORKDIR /app

# The lock first: a change of the code does not install the packages again.
ARG REQUIREMENTS=requirements.txt
COPY --chown=veason requirements.txt requirements-cpu.lock ./
ENV PATH=/app/.venv/bin:$PATH SAM2_BUILD_CUDA=0
RUN --mount=type=cache,target=/home/veason/.cache/pip,uid=${USER_ID} \
    python3 -m venv .venv && \
    grep -E '^(setuptools|wheel)==' requirements-cpu.lock > build.txt && pip install -r build.txt && \
    if [ "$REQUIREMENTS" = requirements-cpu.lock ]; then \
        pip install --no-deps --extra-index-url https://download.pytorch.org/whl/cpu \
            "$(grep '^torch==' requirements-cpu.lock)+cpu" "$(grep '^torchvision==' requirements-cpu.lock)+cpu" && \
        pip install --no-deps --no-build-isolation -r requirements-cpu.lock; \
    else \
        pip install "$(grep '^torch==' requirements.txt)" && \
        grep -v '^sam2==' requirements.txt > gpu-list.txt && pip install -r gpu-list.txt && \
        pip install --no-build-isolation --no-deps "$(grep '^sam2==' requirements.txt)"; \
    fi

# requirements-app.lock adds Gradio for `veason app`; empty: without it.
ARG APP_REQUIREMENTS=
COPY --chown=veason requirements-app.lock ./
RUN if [ -n "$APP_REQUIREMENTS" ]; then pip install --no-cache-dir --no-deps -r "$APP_REQUIREMENTS"; fi

COPY --chown=veason . .
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable .

CMD ["veason", "--help"]
