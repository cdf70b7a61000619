"""The HTTP routes of the service: the API, described at /openapi.json, and the files of the page."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, FastAPI, Request, Security
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException

import raydiff
from raydiff.errors import ImageError, SettingsError
from raydiff.scoring import tokens, uploads
from raydiff.scoring.answers import Answer, Answers, Described, Error, Parameters
from raydiff.scoring.refusal import Refusal
from raydiff.scoring.service_metrics import CONTENT_TYPE
from raydiff.scoring.site import ANSWERED, add_pages, failed, refused

if TYPE_CHECKING:
    from raydiff.scoring.service import Service

FIELDS = 8  # of a form, beside its images
_OPTION = re.compile(r"; (say|give) [^;]*--pages .*")
_BEARER = HTTPBearer(auto_error=False, description="RAYDIFF_SERVE_TOKEN")
_REFUSED = {
    400: "a parameter or the form means nothing",
    401: "the token is missing or wrong",
    413: "the body has too many bytes, or the form too many parts",
    422: "the file is no image that can be read, or has too many pixels",
    503: "too many requests are waiting, or it took too long; Retry-After says when to come again",
}


def http_app(service: Service) -> FastAPI:
    """The application that answers a service's requests."""
    app = FastAPI(title="raydiff", version=raydiff.__version__, docs_url=None, redoc_url=None)
    app.add_exception_handler(Refusal, refused)
    app.add_exception_handler(HTTPException, _unknown)
    app.add_exception_handler(Exception, failed)
    add_pages(app.router, {"/": "index.html", "/docs": "docs.html"})

    def known(bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)]) -> None:
        """Let through who brings the token."""
        tokens.check(service.token_hash, bearer.credentials if bearer else "")

    guarded = [Depends(known)] if service.token_hash else []

    @app.get("/healthz", response_description="it is up")
    async def healthz() -> dict[str, str]:
        """Whether the service is up: its model is loaded. Asks for no token."""
        return {"status": "ok"}

    @app.get("/metrics", dependencies=guarded, include_in_schema=False)
    async def metrics() -> Response:
        """What this replica has done, for Prometheus."""
        return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE, **ANSWERED})

    @app.get(
        "/v1/model",
        dependencies=guarded,
        response_model=Described,
        response_description="the model",
        responses=_told(401),
    )
    async def model() -> Response:
        """The model: its categories, thresholds and normal images' scores, and what a request may bring."""
        return JSONResponse(service.described.model_dump(mode="json"), headers=ANSWERED)

    @app.post(
        "/v1/score",
        dependencies=guarded,
        response_model=Answer | Answers,
        response_description="Answer to a body that is an image, Answers to a form",
        responses=_told(*_REFUSED),
        openapi_extra=_taken(),
    )
    async def score(request: Request) -> Response:
        """Score the image that the body is, or the images of a form; one that cannot be read says so in its place."""
        try:
            response = await _scored(service, request)
        except Refusal as refusal:
            service.metrics.request(refusal.status)
            raise
        service.metrics.request(response.status_code)
        return response

    return app


async def _scored(service: Service, request: Request) -> Response:
    """What is said of a request's image or images."""
    said, kind = dict(request.query_params), request.headers.get("content-type", "")
    parameters = _parameters(said)
    async with service.gate.place():
        data = await uploads.body(request, service.arguments.max_bytes)
        if uploads.is_form(kind):
            return await _form(service, data, kind, said)
        try:
            found = await service.answered(data, parameters)
        except ImageError as error:
            raise Refusal(422, _sentence(error)) from None
        return JSONResponse(found, headers=ANSWERED)


async def _form(service: Service, data: bytes, kind: str, said: dict[str, str]) -> Response:
    """What is said of a form's images."""
    most = service.arguments.max_images
    found = uploads.parts(data, kind, most + FIELDS)
    files = [part for part in found if part.filename is not None]
    if not files:
        raise Refusal(400, "the form has no image: send each as a file, as curl's -F image=@NAME does")
    if len(files) > most:
        raise Refusal(413, f"the form has {len(files)} images, and {most} are the limit here; send several forms")
    fields = {part.name: part.data.decode("utf-8", "replace") for part in found if part.filename is None}
    parameters = _parameters({**said, **fields})
    told: list[dict[str, Any]] = []
    for file in files:
        try:
            told.append({**await service.answered(file.data, parameters), "name": file.filename})
        except ImageError as error:
            told.append({"name": file.filename, "error": _sentence(error)})
    answers = {"images": told, "model_id": service.model_id}
    if any("error" not in each for each in told):
        return JSONResponse(answers, headers=ANSWERED)
    sentence = told[0]["error"] if len(told) == 1 else f"none of the {len(told)} images can be scored"
    return JSONResponse({"error": sentence, **answers}, 422, ANSWERED)


def _sentence(error: ImageError) -> str:
    """What is wrong with an image, with the parameter in place of the option that names a page elsewhere."""
    return _OPTION.sub("; say which one is meant with page=NUMBER", str(error))


def _parameters(said: dict[str, str]) -> Parameters:
    try:
        return Parameters.parse(said)
    except SettingsError as error:
        raise Refusal(400, str(error)) from None


def _told(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Refusals, for the API's description."""
    return {status: {"model": Error, "description": _REFUSED[status]} for status in statuses}


def _taken() -> dict[str, Any]:
    """What `score` takes, for the API's description; it reads its request itself, within the limits."""
    said = {name: _sent(each) for name, each in Parameters.model_json_schema()["properties"].items()}
    image = {"type": "string", "format": "binary"}
    fields = {**said, "image": {"type": "array", "items": image, "minItems": 1}}
    form = {"type": "object", "properties": fields, "required": ["image"], "additionalProperties": False}
    return {
        "parameters": [{"name": name, "in": "query", "required": False, "schema": each} for name, each in said.items()],
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {"schema": image},
                uploads.FORM: {"schema": form},
            },
        },
    }


def _sent(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter as a request has it: who has nothing to say leaves it out, as no text stands for null."""
    kinds = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    kept = {name: value for name, value in schema.items() if name != "anyOf" and (name, value) != ("default", None)}
    return {**kept, **kinds[0]} if kinds else kept


async def _unknown(request: Request, error: Any) -> Response:
    """No such place, or not with this method."""
    path, method = request.url.path, request.method
    sentence = (
        f"{path} does not take {method}; /openapi.json says what takes what"
        if error.status_code == 405
        else f"there is nothing at {path}; the page is at / and the API is described at /openapi.json"
    )
    return JSONResponse({"error": sentence}, error.status_code, error.headers)
