# The images of a federation. Build one with `docker build --target edge --tag flavor-edge .`:
#
#   edge         what runs at a site; your own image starts FROM it (examples/compose/README.md)
#   aggregator   inspects updates and aggregates rounds; run as many as you like
#   coordinator  opens and closes a run's rounds
#   ui           shows all runs in a browser
#   metrics      gives the state of all runs to Prometheus
#   demo-edge    an edge with a training script and made-up data, for compose.yaml
#
#   redis        Redis with a folder that its own user may write to
#
# The images have the packages that every run needs. A bucket needs two more, in all images but those of sites of a run
# with --signed-urls: `docker build --build-arg PACKAGES="obstore botocore" ...`. In the same way, add apprise for
# --notify, or matplotlib for the plot of --out.
#
# An edge waits for a Redis that is away for a day (FLAVOR_PATIENCE_S). Start it with `--restart on-failure`, without a
# number: it ends with code 0 when its run is finished.
#
# None runs as root. /store is the object store, which all of a run's containers mount; /keys is for the key that a
# container signs with (FLAVOR_KEY), should it outlive the container. Their owner is uid 10001, and an empty named volume
# that is mounted there takes that over.

FROM redis:7 AS redis
RUN install --directory --owner redis --group redis /data
USER redis


FROM python:3.11-slim AS builder
WORKDIR /src
RUN python -m venv --without-pip /opt/flavor
# From here on `pip` installs into that environment, in this stage and in images made FROM an edge.
ENV PIP_PYTHON=/opt/flavor/bin/python PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# The dependencies alone come first: their layer stays while only the code changes.
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
      > requirements.txt \
 && pip install --requirement requirements.txt --constraint constraints.txt
ARG PACKAGES=""
RUN test -z "$PACKAGES" || pip install $PACKAGES --constraint constraints.txt
COPY README.md LICENSE ./
COPY flavor/ flavor/
COPY workers/ workers/
COPY aggregators/ aggregators/
COPY aumai_fedtrain/ aumai_fedtrain/
RUN pip install --no-deps .


FROM python:3.11-slim AS runtime
RUN useradd --uid 10001 --user-group --create-home flavor \
 && install --directory --owner flavor --group flavor /store /work /keys
COPY --from=builder /opt/flavor /opt/flavor
ENV PATH=/opt/flavor/bin:$PATH PIP_PYTHON=/opt/flavor/bin/python PYTHONUNBUFFERED=1
WORKDIR /app
USER 10001:10001


FROM runtime AS edge
ENV FLAVOR_WORKSPACE=/work
# A CMD in this form is started by a shell. bash replaces itself by flavor-fl; Debian's sh would stay in front of it and
# keep SIGTERM to itself, so that `docker stop` ended neither before its timeout.
SHELL ["/bin/bash", "-c"]
ENV PROCESS="python main.py"
CMD flavor-fl -m "${PROCESS}"


FROM runtime AS aggregator
CMD ["flavor-agg"]


FROM runtime AS coordinator
CMD ["flavor", "serve"]


FROM builder AS watching-builder
RUN pip install prometheus-client starlette uvicorn --constraint constraints.txt


FROM runtime AS ui
COPY --from=watching-builder /opt/flavor /opt/flavor
CMD ["flavor", "ui", "--host", "0.0.0.0", "--no-open"]


FROM runtime AS metrics
COPY --from=watching-builder /opt/flavor /opt/flavor
CMD ["flavor", "metrics", "--host", "0.0.0.0"]


FROM builder AS demo-data
COPY examples/compose/data.py ./
RUN /opt/flavor/bin/python data.py /data


FROM edge AS demo-edge
COPY --from=demo-data /data /data
COPY examples/compose/train.py ./
ENV PROCESS="python train.py"
