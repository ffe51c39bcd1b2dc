//! Errors as the admin API tells them: a status, a stable code, a sentence.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use themis_actors::ab::spec::ExperimentError;
use themis_actors::store::StoreFault;
use themis_messages::admit::AdmitError;
use themis_messages::call::CallError;
use themis_messages::lifecycle::{LoadError, ReleaseError, RollbackError, UnloadError};
use themis_messages::registry::RegistryError;

/// One error of the API.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl ApiError {
    pub(crate) fn new(
        status: StatusCode,
        code: &'static str,
        message: impl std::fmt::Display,
    ) -> Self {
        Self { status, code, message: message.to_string() }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({"error": {"code": self.code, "message": self.message}});
        (self.status, Json(body)).into_response()
    }
}

/// The status that fits a stable code.
fn status(code: &str) -> StatusCode {
    match code {
        "ab.unknown" | "ab.unknown_arm" => StatusCode::NOT_FOUND,
        "ab.exists" | "ab.busy" | "ab.not_now" => StatusCode::CONFLICT,
        "kernel.busy" | "load.already_loaded" | "unload.needed" => StatusCode::CONFLICT,
        "kernel.overloaded" => StatusCode::TOO_MANY_REQUESTS,
        "kernel.stopped" | "kernel.no_answer" | "audit.refused" => StatusCode::SERVICE_UNAVAILABLE,
        "plugin.bad_name" => StatusCode::BAD_REQUEST,
        "quarantine.not_quarantined" => StatusCode::NOT_FOUND,
        _ if code.ends_with("not_loaded") => StatusCode::NOT_FOUND,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

macro_rules! from_operation {
    ($($error:ty),*) => {$(
        impl From<$error> for ApiError {
            fn from(error: $error) -> Self {
                Self::new(status(error.code()), error.code(), error)
            }
        }
    )*};
}
from_operation!(
    LoadError,
    RollbackError,
    UnloadError,
    ReleaseError,
    AdmitError,
    CallError,
    StoreFault,
    RegistryError,
    ExperimentError
);
