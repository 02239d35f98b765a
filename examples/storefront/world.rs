//! What a service of this shop is given, whoever wrote it.

use std::sync::Arc;

use crate::{db::Manager, documents::Documents, model::Model, supplier::Supplier};

pub struct World {
    pub database: Manager,
    pub supplier: Arc<Supplier>,
    pub model: Arc<Model>,
    pub documents: Arc<Documents>,
}
