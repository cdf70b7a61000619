"""The HTTP routes of the service: the API, described at /openapi.json, and the files of the page."""

from __future__ import annotations

import hashlib
import hmac
import importlib.resources
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, FastAPI, Request, Security
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException

import raydiff
from raydiff.errors import ImageError, SettingsError
from raydiff.scoring import uploads
from raydiff.scoring.answers import Answer, Answers, Described, Error, Parameters
from raydiff.scoring.refusal import Refusal

if TYPE_CHECKING:
    from raydiff.scoring.service import Service

FIELDS = 8  # of a form, beside its images
_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
# The page asks for nothing from elsewhere, runs no script but its own files, and is shown in no other page's frame.
_GUARDED = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_OPTION = re.compile(r"; (say|give) [^;]*--pages .*")
_BEARER = HTTPBearer(auto_error=False, description="RAYDIFF_SERVE_TOKEN")
_ANSWERED = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
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
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(HTTPException, _unknown)
    app.add_exception_handler(Exception, _failed)
    _add_page(app)

    def known(bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)]) -> None:
        """Let through who brings the token."""
        given = hashlib.sha256(bearer.credentials.encode() if bearer else b"").hexdigest()
        if not hmac.compare_digest(given, service.token_hash or ""):
            raise Refusal(
                401, "this service asks for its token: send Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"}
            )

    guarded = [Depends(known)] if service.token_hash else []

    @app.get("/healthz", response_description="it is up")
    async def healthz() -> dict[str, str]:
        """Whether the service is up: its model is loaded. Asks for no token."""
        return {"status": "ok"}

    @app.get(
        "/v1/model",
        dependencies=guarded,
        response_model=Described,
        response_description="the model",
        responses=_told(401),
    )
    async def model() -> Response:
        """The model: its categories, thresholds and normal images' scores, and what a request may bring."""
        return JSONResponse(service.described.model_dump(mode="json"), headers=_ANSWERED)

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
            return JSONResponse(found, headers=_ANSWERED)

    return app


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
        return JSONResponse(answers, headers=_ANSWERED)
    sentence = told[0]["error"] if len(told) == 1 else f"none of the {len(told)} images can be scored"
    return JSONResponse({"error": sentence, **answers}, 422, _ANSWERED)


def _sentence(error: ImageError) -> str:
    """What is wrong with an image, with the parameter in place of the option that names a page elsewhere."""
    return _OPTION.sub("; say which one is meant with page=NUMBER", str(error))


def _parameters(said: dict[str, str]) -> Parameters:
    try:
        return Parameters.parse(said)
    except SettingsError as error:
        raise Refusal(400, str(error)) from None


def _add_page(app: FastAPI) -> None:
    """The page's files, as they lie in `raydiff.page`; the page itself is at the root."""
    for file in importlib.resources.files("raydiff.page").iterdir():
        name, _, ending = file.name.rpartition(".")
        if ending not in _KINDS:
            continue
        path = "/" if file.name == "index.html" else f"/{name}" if ending == "html" else f"/{file.name}"
        endpoint = _file(file.read_bytes(), _KINDS[ending])
        app.router.add_route(path, endpoint, methods=["GET"], include_in_schema=False)


def _file(content: bytes, kind: str) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(_: Request) -> Response:
        return Response(content, media_type=kind, headers=_GUARDED)

    return endpoint


def _told(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Refusals, for the API's description."""
    return {status: {"model": Error, "description": _REFUSED[status]} for status in statuses}


def _taken() -> dict[str, Any]:
    """What `score` takes, for the API's description; it reads its request itself, within the limits."""
    schema = Parameters.model_json_schema()
    image = {"type": "string", "format": "binary"}
    fields = {**schema["properties"], "image": {"type": "array", "items": image}}
    return {
        "parameters": [
            {"name": name, "in": "query", "required": False, "schema": each}
            for name, each in schema["properties"].items()
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {"schema": image},
                uploads.FORM: {"schema": {"type": "object", "properties": fields}},
            },
        },
    }


async def _refused(_: Request, refusal: Any) -> Response:
    return JSONResponse({"error": refusal.sentence}, refusal.status, {**_ANSWERED, **refusal.headers})


async def _unknown(request: Request, error: Any) -> Response:
    """No such place, or not with this method."""
    path, method = request.url.path, request.method
    sentence = (
        f"{path} does not take {method}; /openapi.json says what takes what"
        if error.status_code == 405
        else f"there is nothing at {path}; the page is at / and the API is described at /openapi.json"
    )
    return JSONResponse({"error": sentence}, error.status_code, error.headers)


async def _failed(_: Request, error: Exception) -> Response:
    sentence = f"the service failed at this request ({type(error).__name__}); its log says where"
    return JSONResponse({"error": sentence}, 500)
