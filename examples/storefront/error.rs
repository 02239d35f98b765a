//! Why a request gets no answer.

use std::{error::Error, fmt, sync::Arc};

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use swiftwater_batch::CallError;
use swiftwater_cache::LoadError;
use swiftwater_pool::GetError;
use tokio::task::JoinError;

use crate::supplier::SupplierTimeout;

#[derive(Debug)]
pub enum ShopError {
    Advice(CallError<Arc<JoinError>>),
    Compress(swiftwater_compress::Error),
    Database(rusqlite::Error),
    Json(serde_json::Error),
    Load(LoadError<ShopError>),
    NotFound,
    Pool(GetError<rusqlite::Error>),
    Stopped(JoinError),
    Supplier(SupplierTimeout),
}

impl IntoResponse for ShopError {
    fn into_response(self) -> Response {
        let status = match self.root() {
            Self::Advice(CallError::Refused(_)) | Self::Pool(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Advice(_)
            | Self::Compress(_)
            | Self::Database(_)
            | Self::Json(_)
            | Self::Load(_)
            | Self::Stopped(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Supplier(_) => StatusCode::GATEWAY_TIMEOUT,
        };
        (status, self.root().to_string()).into_response()
    }
}

impl ShopError {
    /// The error that a loader failed with, in place of the news that one did.
    fn root(&self) -> &Self {
        match self {
            Self::Load(LoadError::Loader(error)) => error.root(),
            _ => self,
        }
    }
}

impl fmt::Display for ShopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Advice(error) => write!(f, "the recommendations: {error}"),
            Self::Compress(error) => error.fmt(f),
            Self::Database(error) => write!(f, "the database: {error}"),
            Self::Json(error) => error.fmt(f),
            Self::Load(error) => error.fmt(f),
            Self::NotFound => f.write_str("there is no such thing in this shop"),
            Self::Pool(error) => error.fmt(f),
            Self::Stopped(error) => error.fmt(f),
            Self::Supplier(error) => error.fmt(f),
        }
    }
}

impl Error for ShopError {}

impl From<rusqlite::Error> for ShopError {
    fn from(error: rusqlite::Error) -> Self {
        match error {
            // An id beyond what the database can hold.
            rusqlite::Error::ToSqlConversionFailure(_) => Self::NotFound,
            error => Self::Database(error),
        }
    }
}

impl From<CallError<Arc<JoinError>>> for ShopError {
    fn from(error: CallError<Arc<JoinError>>) -> Self {
        Self::Advice(error)
    }
}

impl From<swiftwater_compress::Error> for ShopError {
    fn from(error: swiftwater_compress::Error) -> Self {
        Self::Compress(error)
    }
}

impl From<serde_json::Error> for ShopError {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

impl From<LoadError<Self>> for ShopError {
    fn from(error: LoadError<Self>) -> Self {
        Self::Load(error)
    }
}

impl From<GetError<rusqlite::Error>> for ShopError {
    fn from(error: GetError<rusqlite::Error>) -> Self {
        Self::Pool(error)
    }
}

impl From<JoinError> for ShopError {
    fn from(error: JoinError) -> Self {
        Self::Stopped(error)
    }
}

impl From<SupplierTimeout> for ShopError {
    fn from(error: SupplierTimeout) -> Self {
        Self::Supplier(error)
    }
}
