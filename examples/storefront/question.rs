//! What readers ask for, and whether what comes is what they asked for.

use std::{collections::VecDeque, slice, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    catalog::{self, LISTED},
    client::Failure,
    documents::Documents,
    keys::Keys,
    model::Model,
    oracle::{Moment, Oracle, Versions},
};

/// What all readers of a phase ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// A category's list, as one JSON document of up to a hundred pages.
    Catalogue,
    /// One of the files of `--documents`.
    Documents,
    /// A product's page.
    Pages,
    /// What goes with the last products that the reader has seen.
    Recommendations,
}

impl Load {
    /// How fast the lines are that its readers sit behind: those of large answers have a good mobile one, of 20 Mbit/s.
    pub fn bytes_per_second(self) -> Option<f64> {
        match self {
            Self::Catalogue | Self::Documents => Some(20e6 / 8.0),
            Self::Pages | Self::Recommendations => None,
        }
    }
}

/// A reader: what they ask for next, and what they have seen.
pub struct Visitor {
    load: Load,
    seen: VecDeque<u64>,
    asked: u64,
}

impl Visitor {
    pub fn new(load: Load) -> Self {
        Self { load, seen: VecDeque::new(), asked: 0 }
    }

    pub fn next(&mut self, keys: &Keys, documents: &Documents) -> Question {
        let product = keys.next();
        self.asked += 1;
        match self.load {
            Load::Catalogue => Question::List(catalog::category_of(product)),
            Load::Documents => Question::Document((product as usize - 1) % documents.len()),
            Load::Pages => Question::Page(product),
            Load::Recommendations => {
                self.seen.push_front(product);
                self.seen.truncate(SEEN);
                Question::Recommendations {
                    seen: self.seen.iter().copied().collect(),
                    // Asking the model costs as much as answering: now and then is enough.
                    check: self.asked.is_multiple_of(CHECKED),
                }
            }
        }
    }
}

pub enum Question {
    Document(usize),
    List(u64),
    Page(u64),
    Recommendations { seen: Vec<u64>, check: bool },
}

/// What a client knows without asking the service.
pub struct Knowledge {
    pub documents: Arc<Documents>,
    pub model: Arc<Model>,
    pub products: u64,
    pub oracle: Oracle,
}

/// What is to be said of an answer that has come.
pub struct Judgement {
    pub stale: bool,
    /// Not what was asked for.
    pub wrong: bool,
    pub delivery: Option<Delivery>,
}

impl Question {
    pub fn path(&self) -> String {
        match self {
            Self::Document(number) => format!("/documents/{number}"),
            Self::List(category) => format!("/catalogue/{category}"),
            Self::Page(product) => format!("/products/{product}"),
            Self::Recommendations { seen, .. } => {
                let seen: Vec<String> = seen.iter().map(u64::to_string).collect();
                format!("/recommendations?seen={}", seen.join(","))
            }
        }
    }

    /// `asked` is the moment before it was.
    pub fn judge(&self, answer: &[u8], asked: Moment, known: &Knowledge) -> Result<Judgement, Failure> {
        let expected: Option<Vec<u64>> = match self {
            Self::Document(number) => {
                let wrong = known.documents.get(*number).is_none_or(|document| document.body != answer);
                return Ok(Judgement { stale: false, wrong, delivery: None });
            }
            Self::Page(product) => {
                let page: Page = serde_json::from_slice(answer)?;
                let stale = known.oracle.is_stale(asked, [(page.id, page.versions)]);
                return Ok(Judgement { stale, wrong: page.id != *product, delivery: page.delivery });
            }
            Self::List(category) => {
                Some(catalog::products_of(*category, known.products).take(LISTED).collect())
            }
            // Alone, whatever batch it was in.
            Self::Recommendations { seen, check } => {
                check.then(|| known.model.recommend(slice::from_ref(seen)).remove(0))
            }
        };
        let pages: Vec<Page> = serde_json::from_slice(answer)?;
        let stale = known.oracle.is_stale(asked, pages.iter().map(|page| (page.id, page.versions)));
        let wrong = expected.is_some_and(|expected| !pages.iter().map(|page| page.id).eq(expected));
        Ok(Judgement { stale, wrong, delivery: None })
    }
}

/// The part of a page that matters here.
#[derive(Deserialize)]
struct Page {
    id: u64,
    versions: Versions,
    delivery: Option<Delivery>,
}

#[derive(Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Delivery {
    Fresh,
    LastKnown,
    Unknown,
}

/// How many products back a visitor's taste goes.
const SEEN: usize = 3;

/// One recommendation of so many is compared with the model's own.
const CHECKED: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const PRODUCTS: u64 = 300;

    fn known() -> Knowledge {
        Knowledge {
            documents: Arc::default(),
            model: Arc::new(Model::train(PRODUCTS)),
            products: PRODUCTS,
            oracle: Oracle::default(),
        }
    }

    fn pages(ids: &[u64]) -> Vec<u8> {
        let page =
            |id| format!(r#"{{"id":{id},"versions":{{"product":1,"stock":1,"category":1,"price_list":1}}}}"#);
        format!("[{}]", ids.iter().map(page).collect::<Vec<_>>().join(",")).into_bytes()
    }

    fn is_wrong(question: &Question, ids: &[u64], known: &Knowledge) -> bool {
        question.judge(&pages(ids), known.oracle.now(), known).unwrap().wrong
    }

    #[test]
    fn a_list_must_hold_its_category() {
        let known = known();
        let list = Question::List(catalog::category_of(7));
        assert!(!is_wrong(&list, &[7, 107, 207], &known));
        assert!(is_wrong(&list, &[7, 107], &known));
        assert!(is_wrong(&list, &[8, 108, 208], &known));
    }

    #[test]
    fn recommendations_must_be_those_of_this_visitor() {
        let known = known();
        let of = |seen: u64| Question::Recommendations { seen: vec![seen], check: true };
        let mine = known.model.recommend(&[vec![7]]).remove(0);
        assert!(!is_wrong(&of(7), &mine, &known));
        assert!(is_wrong(&of(8), &mine, &known));
    }
}
