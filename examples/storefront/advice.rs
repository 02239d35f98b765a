//! Recommendations: the model says which products, their pages come from the cache and so are as fresh as any.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use swiftwater_batch::Batcher;
use swiftwater_core::BuildError;
use tokio::task::{self, JoinError};

use crate::{
    error::ShopError,
    model::Model,
    page::{Page, Visit},
    shop::Shop,
};

/// Takes what a visitor has seen, gives what goes with it.
pub type Advice = Batcher<Vec<u64>, Vec<u64>, Arc<JoinError>>;

/// Visitors who ask while a batch is computed make up the next one: nobody waits for a batch to fill. Switched off, each
/// visitor's recommendations are computed alone.
pub fn advice(model: Arc<Model>, batched: bool) -> Result<Advice, BuildError> {
    let recommend = move |visitors: Vec<Vec<u64>>| {
        let model = model.clone();
        // A batch takes a millisecond or more, too long for the runtime.
        async move { task::spawn_blocking(move || model.recommend(&visitors)).await }
    };
    Batcher::builder(recommend).enabled(batched).build()
}

pub async fn recommendations(
    State(shop): State<Arc<Shop>>,
    Query(visit): Query<Visit>,
) -> Result<Response, ShopError> {
    let products = shop.advice.call(visit.seen()).await?;
    let mut hits = Vec::with_capacity(products.len());
    for product in products {
        hits.push(shop.page(product).await?);
    }
    let pages: Vec<&Page> = hits.iter().map(|page| &**page).collect();
    Ok(Json(pages).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_visitor_gets_their_own_recommendations_batched_or_not() {
        let model = Arc::new(Model::train(500));
        for batched in [false, true] {
            let advice = advice(model.clone(), batched).unwrap();
            let calls: Vec<_> = (1..=100).map(|seen| (seen, advice.call(vec![seen]))).collect();
            for (seen, call) in calls {
                assert_eq!(call.await.unwrap(), model.recommend(&[vec![seen]]).remove(0), "{seen}");
            }
        }
    }
}
