//! Places that are used again, under names that never are.

/// The name of one tenant: where it is, and which of all tenants there ever were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id {
    serial: u64,
    index: usize,
}

impl Id {
    /// Before every name.
    pub(crate) const LEAST: Self = Self { serial: 0, index: 0 };
}

#[derive(Debug)]
pub(crate) struct Slab<T> {
    places: Vec<Option<(u64, T)>>,
    free: Vec<usize>,
    serial: u64,
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new(), serial: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(crate) fn insert(&mut self, tenant: T) -> Id {
        self.serial += 1;
        let serial = self.serial;
        let index = if let Some(index) = self.free.pop() {
            self.places[index] = Some((serial, tenant));
            index
        } else {
            self.places.push(Some((serial, tenant)));
            self.places.len() - 1
        };
        Id { serial, index }
    }

    pub(crate) fn get(&self, id: Id) -> Option<&T> {
        match self.places.get(id.index) {
            Some(Some((serial, tenant))) if *serial == id.serial => Some(tenant),
            _ => None,
        }
    }

    pub(crate) fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        match self.places.get_mut(id.index) {
            Some(Some((serial, tenant))) if *serial == id.serial => Some(tenant),
            _ => None,
        }
    }

    pub(crate) fn remove(&mut self, id: Id) -> Option<T> {
        self.get(id)?;
        let (_, tenant) = self.places[id.index].take()?;
        self.free.push(id.index);
        if self.len() == 0 && self.places.len() > KEPT {
            // A burst leaves no more behind than this.
            self.places = Vec::new();
            self.free = Vec::new();
        }
        Some(tenant)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Id, &mut T)> {
        self.places.iter_mut().enumerate().filter_map(|(index, place)| {
            place.as_mut().map(|(serial, tenant)| (Id { serial: *serial, index }, tenant))
        })
    }
}

/// So many empty places are kept for the next tenants.
const KEPT: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_never_given_twice() {
        let mut slab = Slab::new();
        let first = slab.insert('a');
        assert_eq!(slab.remove(first), Some('a'));
        let second = slab.insert('b');
        assert_eq!(second.index, first.index, "the place is");
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&'b'));
    }

    #[test]
    fn a_burst_leaves_nothing_behind_and_no_name_comes_back() {
        let mut slab = Slab::new();
        let ids: Vec<_> = (0..=KEPT).map(|tenant| slab.insert(tenant)).collect();
        for id in &ids {
            slab.remove(*id);
        }
        assert_eq!((slab.places.capacity(), slab.free.capacity()), (0, 0));
        slab.insert(0);
        assert!(ids.iter().all(|id| slab.get(*id).is_none()));
    }
}
