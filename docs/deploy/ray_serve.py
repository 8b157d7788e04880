"""Several native servers behind one address, started and watched by Ray Serve.

    pip install "ray[serve]"                       # beside llavar[serve]
    LLAVAR_MODEL=nano LLAVAR_REPLICAS=2 serve run ray_serve:app

in this file's folder. Every replica holds the model and is the whole server that ``llavar serve`` starts:
API, limits, key, queue. Ray sends a request to the less busy of two replicas and starts one anew that died.
LLAVAR_API_KEY is checked by the replicas; it must be set where Ray's processes start. Ray's own ports (its
dashboard, 8265, among them) run code for whoever they let in; before Ray 2.60 they ask for no token. Keep
them on loopback or behind a firewall.
"""

from __future__ import annotations

import os

from fastapi import FastAPI
from ray import serve

MODEL = os.environ.get("LLAVAR_MODEL", "nano")
KEY = os.environ.get("LLAVAR_API_KEY", "")
SLOTS, WAITING = 16, 64


def server() -> FastAPI:
    """The application of one replica, its model loaded. Called in the replica."""
    from llavar.generate.engine import Engine
    from llavar.generate.local import LocalGenerator
    from llavar.serve.api import build
    from llavar.serve.settings import Settings
    from llavar.study.reader import find

    engine = Engine(LocalGenerator.load(find(MODEL), name=MODEL), slots=SLOTS, may_wait=WAITING)
    return build({MODEL: engine}, Settings(keys=(KEY,) if KEY else ()))


app = serve.deployment(
    serve.ingress(server)(),
    name="llavar",
    num_replicas=int(os.environ.get("LLAVAR_REPLICAS", "2")),
    # Our own queue answers 429 with Retry-After; Ray's limit only has to be above it.
    max_ongoing_requests=SLOTS + WAITING + 16,
    health_check_period_s=10,
    graceful_shutdown_timeout_s=35,
    ray_actor_options={"num_cpus": 1, "num_gpus": float(os.environ.get("LLAVAR_GPUS", "0"))},
).bind()
