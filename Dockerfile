# The image of cluster.yaml and jobs/kuberay/: CPU and GPU nodes alike (PyTorch's wheels bring CUDA; the host
# brings the driver). `docker build -t registry.example.com/synface:latest .`
FROM python:3.11-slim-bookworm

# driver, head and workers must run the same Ray: one number, here and in jobs/kuberay/*.yaml
ARG RAY_VERSION=2.60.0
# another build of PyTorch, for example "torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
ARG TORCH="torch==2.13.0"

# rsync: the cluster launcher copies files with it; wget: KubeRay's health probes; procps: `ray stop` in a container
RUN apt-get update \
 && apt-get install --yes --no-install-recommends rsync wget procps tini \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 1000 --shell /bin/bash ray

# MALLOC_*: as ops/cluster.py has it for the workers of a local cluster
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token \
    MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=1073741824
RUN pip install ${TORCH} && pip install "ray[default,data,train,tune]==${RAY_VERSION}"

# dependencies first, so that a change of the code does not install them again
WORKDIR /opt/synface
COPY pyproject.toml README.md LICENSE ./
COPY synface/__init__.py synface/__init__.py
RUN pip install ".[all]" && pip uninstall --yes synface

COPY --chown=ray:ray synface synface
COPY --chown=ray:ray jobs jobs
RUN pip install --no-deps --editable . && chown -R ray:ray /opt/synface

USER ray
# the token's place; the file itself never is in the image
RUN mkdir --mode=700 /home/ray/.ray
# numba writes what it has compiled beside its caller or here
ENV NUMBA_CACHE_DIR=/tmp/numba

ENTRYPOINT ["tini", "-g", "--"]
CMD ["synface", "--help"]
