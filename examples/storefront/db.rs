//! The shop's database: SQLite in a folder of its own, its queries, and the manager that lets a pool open connections.
//!
//! Everything in here blocks, so the service calls it from [`tokio::task::spawn_blocking`].

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use rusqlite::{OpenFlags, OptionalExtension, TransactionBehavior, params};
use swiftwater_core::Counter;
use tempfile::TempDir;
use tokio::task;

use crate::{
    catalog::{self, CATEGORIES, LISTED, PRICE_LISTS},
    page::Percent,
};

type Result<T> = rusqlite::Result<T>;

pub struct Product {
    pub id: u64,
    pub name: String,
    pub description: String,
    pub cents: u64,
    pub category: u64,
    pub price_list: u64,
    pub version: u64,
}

pub struct Stock {
    pub units: u64,
    pub version: u64,
}

pub struct Category {
    pub name: String,
    pub version: u64,
}

pub struct PriceList {
    pub name: String,
    pub tiers: Vec<Tier>,
    pub version: u64,
}

/// From so many units on, so much is taken off the price.
pub struct Tier {
    pub units: u64,
    pub percent_off: u64,
}

/// One connection. Statements are prepared once and kept with it, which is part of what a pool saves.
pub struct Connection {
    sqlite: rusqlite::Connection,
    queries: Arc<Counter>,
}

impl Connection {
    pub fn product(&self, id: u64) -> Result<Option<Product>> {
        self.queries.add(1);
        self.sqlite
            .prepare_cached(
                "SELECT name, description, cents, category, price_list, version FROM products WHERE id = ?1",
            )?
            .query_row([id], |row| {
                Ok(Product {
                    id,
                    name: row.get(0)?,
                    description: row.get(1)?,
                    cents: row.get(2)?,
                    category: row.get(3)?,
                    price_list: row.get(4)?,
                    version: row.get(5)?,
                })
            })
            .optional()
    }

    /// The products of a category with their stock, as many as its list shows.
    pub fn listed(&self, category: u64) -> Result<Vec<(Product, Stock)>> {
        self.queries.add(1);
        self.sqlite
            .prepare_cached(
                "SELECT p.id, p.name, p.description, p.cents, p.price_list, p.version, s.units, s.version
                 FROM products p JOIN stock s ON s.product = p.id WHERE p.category = ?1 ORDER BY p.id LIMIT ?2",
            )?
            .query_map(params![category, LISTED], |row| {
                let product = Product {
                    id: row.get(0)?,
                    name: row.get(1)?,
                    description: row.get(2)?,
                    cents: row.get(3)?,
                    category,
                    price_list: row.get(4)?,
                    version: row.get(5)?,
                };
                Ok((product, Stock { units: row.get(6)?, version: row.get(7)? }))
            })?
            .collect()
    }

    pub fn stock(&self, product: u64) -> Result<Stock> {
        self.queries.add(1);
        self.sqlite
            .prepare_cached("SELECT units, version FROM stock WHERE product = ?1")?
            .query_row([product], |row| Ok(Stock { units: row.get(0)?, version: row.get(1)? }))
    }

    pub fn category(&self, id: u64) -> Result<Category> {
        self.queries.add(1);
        self.sqlite
            .prepare_cached("SELECT name, version FROM categories WHERE id = ?1")?
            .query_row([id], |row| Ok(Category { name: row.get(0)?, version: row.get(1)? }))
    }

    /// A price list with its tiers.
    pub fn price_list(&self, id: u64) -> Result<PriceList> {
        self.queries.add(1);
        let mut statement = self.sqlite.prepare_cached(
            "SELECT l.name, l.version, t.units, t.percent_off
             FROM price_lists l JOIN price_tiers t ON t.price_list = l.id WHERE l.id = ?1 ORDER BY t.units",
        )?;
        let mut rows = statement.query([id])?;
        let mut list: Option<PriceList> = None;
        while let Some(row) = rows.next()? {
            let (name, version) = (row.get(0)?, row.get(1)?);
            let tier = Tier { units: row.get(2)?, percent_off: row.get(3)? };
            let tiers = Vec::new();
            list.get_or_insert(PriceList { name, tiers, version }).tiers.push(tier);
        }
        list.ok_or(rusqlite::Error::QueryReturnedNoRows)
    }

    /// Changes a product's price. `None`, here and below: there is no such row; else the row's new version.
    pub fn set_price(&mut self, product: u64, cents: u32) -> Result<Option<u64>> {
        self.write(|sqlite| {
            sqlite
                .prepare_cached(
                    "UPDATE products SET cents = ?2, version = version + 1 WHERE id = ?1 RETURNING version",
                )?
                .query_row(params![product, cents], |row| row.get(0))
                .optional()
        })
    }

    /// Changes how many units of a product are in stock.
    pub fn set_stock(&mut self, product: u64, units: u32) -> Result<Option<u64>> {
        self.write(|sqlite| {
            sqlite
                .prepare_cached(
                    "UPDATE stock SET units = ?2, version = version + 1 WHERE product = ?1 RETURNING version",
                )?
                .query_row(params![product, units], |row| row.get(0))
                .optional()
        })
    }

    /// Renames a category, with all the products in it.
    pub fn set_category(&mut self, id: u64, name: &str) -> Result<Option<u64>> {
        self.write(|sqlite| {
            sqlite
                .prepare_cached(
                    "UPDATE categories SET name = ?2, version = version + 1 WHERE id = ?1 RETURNING version",
                )?
                .query_row(params![id, name], |row| row.get(0))
                .optional()
        })
    }

    /// Changes what a price list takes off per tier, for all the products on it.
    pub fn set_price_list(&mut self, id: u64, percent_off: Percent) -> Result<Option<u64>> {
        self.write(|sqlite| {
            sqlite
                .prepare_cached(
                    "UPDATE price_tiers SET percent_off = ?2 * (units > 1) WHERE price_list = ?1",
                )?
                .execute(params![id, percent_off.0])?;
            sqlite
                .prepare_cached(
                    "UPDATE price_lists SET version = version + 1 WHERE id = ?1 RETURNING version",
                )?
                .query_row([id], |row| row.get(0))
                .optional()
        })
    }

    /// Data and version change in one transaction. Immediate: it queues for the write lock before it reads, so it can
    /// wait its turn, where a deferred one would have to fail.
    fn write<T>(&mut self, change: impl FnOnce(&rusqlite::Connection) -> Result<T>) -> Result<T> {
        let transaction = self.sqlite.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let changed = change(&transaction)?;
        transaction.commit()?;
        Ok(changed)
    }
}

/// Opens connections: what a pool is given.
#[derive(Clone)]
pub struct Manager {
    path: Arc<PathBuf>,
    queries: Arc<Counter>,
}

impl Manager {
    pub fn open(&self) -> Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let sqlite = rusqlite::Connection::open_with_flags(&*self.path, flags)?;
        sqlite.busy_timeout(WRITE_LOCK_TIMEOUT)?;
        // With a write-ahead log this risks the last commits in a power cut, never the database.
        sqlite.pragma_update(None, "synchronous", "NORMAL")?;
        Ok(Connection { sqlite, queries: self.queries.clone() })
    }

    /// How many queries the pages have cost so far, over all connections.
    pub fn queries(&self) -> u64 {
        self.queries.read()
    }
}

impl bb8::ManageConnection for Manager {
    type Connection = Connection;
    type Error = rusqlite::Error;

    async fn connect(&self) -> Result<Connection> {
        let manager = self.clone();
        // It opens files. A panic in there is a bug of ours, and goes on as one.
        match task::spawn_blocking(move || manager.open()).await {
            Ok(opened) => opened,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    async fn is_valid(&self, connection: &mut Connection) -> Result<()> {
        // Microseconds, without I/O: not worth a thread.
        connection.sqlite.query_row("SELECT 1", [], |_| Ok(()))
    }

    /// A connection that comes back inside a transaction was left half-way through a write.
    fn has_broken(&self, connection: &mut Connection) -> bool {
        !connection.sqlite.is_autocommit()
    }
}

/// A database with its rows, in a folder that goes when this is dropped.
pub struct Database {
    folder: TempDir,
}

impl Database {
    pub fn create(products: u64) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("storefront-").tempdir()?;
        let database = Self { folder };
        database.seed(products).map_err(io::Error::other)?;
        Ok(database)
    }

    pub fn manager(&self) -> Manager {
        Manager { path: Arc::new(self.path()), queries: Arc::default() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("shop.sqlite")
    }

    fn seed(&self, products: u64) -> Result<()> {
        let mut sqlite = rusqlite::Connection::open(self.path())?;
        // Readers and the writer do not wait for each other. The mode stays with the file.
        sqlite.pragma_update(None, "journal_mode", "WAL")?;
        let rows = sqlite.transaction()?;
        rows.execute_batch(SCHEMA)?;
        for id in 1..=CATEGORIES {
            rows.execute("INSERT INTO categories VALUES (?1, ?2, 1)", params![id, format!("Category {id}")])?;
        }
        for id in 1..=PRICE_LISTS {
            rows.execute("INSERT INTO price_lists VALUES (?1, ?2, 1)", params![id, format!("List {id}")])?;
            for (units, percent_off) in [(1, 0), (10, 5), (100, 12)] {
                rows.execute("INSERT INTO price_tiers VALUES (?1, ?2, ?3)", params![id, units, percent_off])?;
            }
        }
        for id in 1..=products {
            let (category, list) = (catalog::category_of(id), catalog::price_list_of(id));
            let name = format!("Product {id}");
            rows.prepare_cached("INSERT INTO products VALUES (?1, ?2, ?3, ?4, ?5, ?6, 1)")?
                .execute(params![id, name, description(id), 100 + id % 9_900, category, list])?;
            rows.prepare_cached("INSERT INTO stock VALUES (?1, ?2, 1)")?.execute(params![id, id % 100])?;
        }
        rows.commit()
    }
}

/// A line of facts, and one sentence or up to all of them.
fn description(id: u64) -> String {
    let mut random = fastrand::Rng::with_seed(id);
    let mut one_of = |words: &[&'static str]| words[random.usize(..words.len())];
    let (material, finish, place) = (one_of(&MATERIALS), one_of(&FINISHES), one_of(&PLACES));
    let mut centimetres = || random.u32(4..180);
    let (width, height, depth) = (centimetres(), centimetres(), centimetres());
    let sentences = SENTENCES[..=id as usize % SENTENCES.len()].concat();
    format!("{material}, {finish}, {width} x {height} x {depth} cm, from {place}. {sentences}")
}

/// How long a write waits for the other writers before it fails.
const WRITE_LOCK_TIMEOUT: Duration = Duration::from_secs(5);

const SCHEMA: &str = "
    CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT NOT NULL, description TEXT NOT NULL,
        cents INTEGER NOT NULL, category INTEGER NOT NULL, price_list INTEGER NOT NULL, version INTEGER NOT NULL);
    CREATE INDEX products_by_category ON products (category, id);
    CREATE TABLE stock (product INTEGER PRIMARY KEY, units INTEGER NOT NULL, version INTEGER NOT NULL);
    CREATE TABLE categories (id INTEGER PRIMARY KEY, name TEXT NOT NULL, version INTEGER NOT NULL);
    CREATE TABLE price_lists (id INTEGER PRIMARY KEY, name TEXT NOT NULL, version INTEGER NOT NULL);
    CREATE TABLE price_tiers (price_list INTEGER NOT NULL, units INTEGER NOT NULL, percent_off INTEGER NOT NULL,
        PRIMARY KEY (price_list, units)) WITHOUT ROWID;";

const MATERIALS: [&str; 8] = ["Ash", "Brass", "Cork", "Felt", "Linen", "Oak", "Porcelain", "Steel"];
const FINISHES: [&str; 6] = ["brushed", "dyed", "enamelled", "oiled", "raw", "waxed"];
const PLACES: [&str; 7] = ["Bergen", "Ghent", "Lodz", "Porto", "Tallinn", "Trieste", "Vigo"];
const SENTENCES: [&str; 4] = [
    "Made to be used every day, and to be repaired when it has been.",
    " Available in six colours, of which the shop keeps two.",
    " Delivered without plastic, in a box that has seen other journeys.",
    " If it disappoints you, bring it back within a hundred days; most people bring a friend instead.",
];
