"""The operations of the API server in memory.

What comes in and goes out is held against the published OpenAPI models of kfp-server-api: a field or a query parameter
that they do not know is refused, as is what the real server's own validation refuses.
"""

import base64
import inspect
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import kfp_server_api
import yaml

from pipelines.cluster import cron
from tests.pipelines.cluster.kfp_state import FINISHED, KfpServer, RefusalError, now


def answer(state: KfpServer, method: str, place: str, query: dict[str, str], body: bytes) -> dict:
    """Return the reply to one request."""
    for verb, pattern, operation, reply_model, handle in ROUTES:
        found = re.fullmatch(pattern, place)
        if verb == method and found:
            known = set(re.findall(r"query_params\.append\(\('([\w.]+)'", inspect.getsource(operation)))
            if unknown := set(query) - known:
                raise RefusalError(400, f"unknown query parameters {unknown}")
            reply = handle(state, query, body, *found.groups())
            return held_against(reply_model, reply) if reply_model else reply
    raise RefusalError(404, "Not Found")


def held_against(model: str, document: dict) -> dict:
    """Return a document if the published model can say all of it."""
    client = kfp_server_api.ApiClient()
    said = client.sanitize_for_serialization(client.deserialize(SimpleNamespace(data=json.dumps(document)), model))
    if said != document:
        raise RefusalError(400, f"{model} cannot say {document}, but only {said}")
    return document


def page(state: KfpServer, entries: str, found: list[dict], query: dict[str, str]) -> dict:
    """Return one page of a list, filtered and sorted; a token is only good for the request that it came from."""
    asked = {key: value for key, value in query.items() if key not in ("page_token", "page_size")}
    start = 0
    if query.get("page_token"):
        start, of = json.loads(base64.b64decode(query["page_token"]))
        if of != asked:
            raise RefusalError(400, "Invalid input error: the page token is of another request")
    for predicate in json.loads(query.get("filter") or "{}").get("predicates", []):
        if predicate["operation"] not in (1, "EQUALS") or predicate["key"] != "display_name":
            raise RefusalError(400, f"Invalid input error: filter {predicate}")
        # MySQL compares without case.
        found = [entry for entry in found if entry["display_name"].lower() == predicate["stringValue"].lower()]
    if query.get("sort_by", "") not in ("", "created_at desc"):
        raise RefusalError(400, f"Invalid input error: sort by {query['sort_by']}")
    ordered = found[::-1] if query.get("sort_by") else found
    end = start + min(state.page_limit, int(query.get("page_size", 20)))
    reply: dict = {entries: ordered[start:end], "total_size": len(ordered)}
    if end < len(ordered):
        reply["next_page_token"] = base64.b64encode(json.dumps([end, asked]).encode()).decode()
    return reply


def check_namespace(state: KfpServer, namespace: str) -> None:
    if state.multi_user != bool(namespace):
        raise RefusalError(400, f"Invalid input error: namespace '{namespace}' with multi-user {state.multi_user}")


def lists(kind: str, entries: str) -> Callable[..., dict]:
    def handle(state: KfpServer, query: dict, body: bytes, *ids: str) -> dict:
        found = state.made(kind)
        if ids:
            found = [entry for entry in found if entry["pipeline_id"] == ids[0]]
        elif query.get("experiment_id"):
            found = [entry for entry in found if entry["experiment_id"] == query["experiment_id"]]
        else:
            check_namespace(state, query.get("namespace", ""))
        return page(state, entries, found, query)

    return handle


def creates(kind: str, id_field: str, model: str, check: Callable[[KfpServer, dict], dict]) -> Callable[..., dict]:
    def handle(state: KfpServer, query: dict, body: bytes) -> dict:
        document = held_against(model, json.loads(body))
        return state.add(kind, id_field, document | check(state, document))

    return handle


def once(kind: str) -> Callable[[KfpServer, dict], dict]:
    def check(state: KfpServer, document: dict) -> dict:
        check_namespace(state, document.get("namespace", ""))
        if any(entry["display_name"] == document["display_name"] for entry in state.made(kind)):
            raise RefusalError(409, f"Already exist error: {document['display_name']} already exists.")
        return {}

    return check


def upload(state: KfpServer, query: dict, body: bytes) -> dict:
    state.get("pipelines", query["pipelineid"])
    if any((v["pipeline_id"], v["name"]) == (query["pipelineid"], query["name"]) for v in state.made("versions")):
        raise RefusalError(409, f"Already exist error: version {query['name']} already exists.")
    text = body.split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n--", 1)[0]
    names = {"name": query["name"], "display_name": query["name"]}
    kept = kept_of(state, list(yaml.load_all(text, yaml.CSafeLoader)))
    return state.add("versions", "pipeline_version_id",
                     {"pipeline_id": query["pipelineid"], **names, "pipeline_spec": kept})  # fmt: skip


def kept_of(state: KfpServer, documents: list[dict]) -> dict:
    """Return what the server keeps: what is said of pods is dropped as a whole where one field is not known."""
    spec, *platforms = documents
    if not platforms:
        return spec
    executors = platforms[0]["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values()
    old = state.version.startswith("2.16") or state.version == ""
    if old and any("securityContext" in executor for executor in executors):
        return spec
    return {"pipeline_spec": spec, "platform_spec": platforms[0]}


def healthz(state: KfpServer, query: dict[str, str], body: bytes) -> dict:
    """Answer as the real server does: with more than the published model says."""
    told = {"tag_name": state.version, "commit_sha": "0" * 40} if state.version else {}
    return {"multi_user": state.multi_user, "pipeline_store": "database", **told}


def check_run(state: KfpServer, document: dict) -> dict:
    state.get("experiments", document["experiment_id"])
    version = state.get("versions", document["pipeline_version_reference"]["pipeline_version_id"])
    given = document["runtime_config"]["parameters"]
    kept = version["pipeline_spec"]
    wanted = kept.get("pipeline_spec", kept)["root"]["inputDefinitions"]["parameters"]
    lacking = {name for name, about in wanted.items() if "defaultValue" not in about} - set(given)
    if lacking or set(given) - set(wanted):
        raise RefusalError(400, f"Invalid input error: parameters {lacking or set(given) - set(wanted)}")
    return {"state": "PENDING"}


def begins(state: KfpServer, query: dict, body: bytes) -> dict:
    run = creates("runs", "run_id", "V2beta1Run", check_run)(state, query, body)
    state.on_run(run["run_id"])
    return run


def check_schedule(state: KfpServer, document: dict) -> dict:
    check_run(state, document)
    if not 1 <= int(document["max_concurrency"]) <= 10:
        raise RefusalError(400, "The max concurrency of the recurring run is out of range. Support 1-10.")
    if len(document["trigger"]["cron_schedule"]["cron"].split()) not in (5, 6):
        raise RefusalError(400, "Schedule cron is not a supported format.")
    return {"updated_at": now()}


def asks_for_run(state: KfpServer, query: dict, body: bytes, run_id: str) -> dict:
    run = state.get("runs", run_id)
    if state.story:
        run.update(state.story.pop(0))
    state.play()
    return run


def removes(kind: str) -> Callable[..., dict]:
    def handle(state: KfpServer, query: dict, body: bytes, *ids: str) -> dict:
        state.get(kind, ids[-1])
        del state.tables[kind][ids[-1]]
        return {}

    return handle


def terminates(state: KfpServer, query: dict, body: bytes, run_id: str) -> dict:
    state.get("runs", run_id)["state"] = "CANCELING"
    return {}


def switches(state: KfpServer, query: dict, body: bytes, name: str, verb: str) -> dict:
    schedule = state.get("recurringruns", name)
    if verb == "enable" and schedule["mode"] == "DISABLE":
        # The latest of the times that have passed since it was made starts a run at once, no_catchup or not.
        made = datetime.fromisoformat(schedule["created_at"])
        if cron.next_times(schedule["trigger"]["cron_schedule"]["cron"], made, 1)[0] <= datetime.now(UTC):
            state.tick(name)
    schedule.update(mode=verb.upper(), updated_at=now())
    return {}


def deletes(state: KfpServer, query: dict, body: bytes, name: str) -> dict:
    state.get("recurringruns", name)
    del state.tables["recurringruns"][name]
    for run in state.made("runs"):
        if run.get("recurring_run_id") == name and run["state"] not in FINISHED:
            state.killed.append(run["display_name"])
    return {}


P, R, E = kfp_server_api.PipelineServiceApi, kfp_server_api.RunServiceApi, kfp_server_api.ExperimentServiceApi
U, S = kfp_server_api.PipelineUploadServiceApi, kfp_server_api.RecurringRunServiceApi
HEALTH = kfp_server_api.HealthzServiceApi.healthz_service_get_healthz_with_http_info
SWITCH = S.recurring_run_service_enable_recurring_run_with_http_info
ROUTES: list[tuple[str, str, Any, str, Callable[..., dict]]] = [
    ("GET", "healthz", HEALTH, "", healthz),
    ("GET", "pipelines", P.pipeline_service_list_pipelines_with_http_info, "V2beta1ListPipelinesResponse",
     lists("pipelines", "pipelines")),
    ("POST", "pipelines", P.pipeline_service_create_pipeline_with_http_info, "V2beta1Pipeline",
     creates("pipelines", "pipeline_id", "V2beta1Pipeline", once("pipelines"))),
    ("POST", "pipelines/upload_version", U.upload_pipeline_version_with_http_info, "V2beta1PipelineVersion", upload),
    ("GET", "pipelines/([^/]+)/versions", P.pipeline_service_list_pipeline_versions_with_http_info,
     "V2beta1ListPipelineVersionsResponse", lists("versions", "pipeline_versions")),
    ("GET", "experiments", E.experiment_service_list_experiments_with_http_info, "V2beta1ListExperimentsResponse",
     lists("experiments", "experiments")),
    ("POST", "experiments", E.experiment_service_create_experiment_with_http_info, "V2beta1Experiment",
     creates("experiments", "experiment_id", "V2beta1Experiment", once("experiments"))),
    ("GET", "runs", R.run_service_list_runs_with_http_info, "V2beta1ListRunsResponse", lists("runs", "runs")),
    ("POST", "runs", R.run_service_create_run_with_http_info, "V2beta1Run",
     begins),
    ("GET", "runs/([^/:]+)", R.run_service_get_run_with_http_info, "V2beta1Run", asks_for_run),
    ("DELETE", "runs/([^/:]+)", R.run_service_delete_run_with_http_info, "object", removes("runs")),
    ("DELETE", "pipelines/([^/]+)/versions/([^/]+)", P.pipeline_service_delete_pipeline_version_with_http_info,
     "object", removes("versions")),
    ("DELETE", "pipelines/([^/]+)", P.pipeline_service_delete_pipeline_with_http_info, "object", removes("pipelines")),
    ("DELETE", "experiments/([^/]+)", E.experiment_service_delete_experiment_with_http_info, "object",
     removes("experiments")),
    ("POST", "runs/([^/:]+):terminate", R.run_service_terminate_run_with_http_info, "object", terminates),
    ("GET", "recurringruns", S.recurring_run_service_list_recurring_runs_with_http_info,
     "V2beta1ListRecurringRunsResponse", lists("recurringruns", "recurringRuns")),
    ("POST", "recurringruns", S.recurring_run_service_create_recurring_run_with_http_info, "V2beta1RecurringRun",
     creates("recurringruns", "recurring_run_id", "V2beta1RecurringRun", check_schedule)),
    ("POST", "recurringruns/([^/:]+):(enable|disable)", SWITCH, "object", switches),
    ("DELETE", "recurringruns/([^/:]+)", S.recurring_run_service_delete_recurring_run_with_http_info, "object",
     deletes),
]  # fmt: skip
