//! A budget that callers share: an amount in all, and a share that one caller may have of it.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;

/// A caller's share is the budget divided by this.
const SHARES: usize = 4;

/// A bounded amount, of bytes for example. A cheap handle, to be cloned.
#[derive(Debug)]
pub struct Budget<K: Eq + Hash>(Arc<BudgetState<K>>);

#[derive(Debug)]
struct BudgetState<K> {
    total: usize,
    share: usize,
    used: AtomicUsize,
    /// What each caller uses; callers that use nothing are not in it.
    used_by: Mutex<HashMap<K, usize>>,
}

/// Why a budget grants no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BudgetExceeded {
    /// All callers together use it up.
    Total,
    /// This caller uses its share up.
    Share,
}

impl<K: Eq + Hash + Clone> Budget<K> {
    /// A budget of `total`, of which one caller may have a quarter, at least 1.
    #[must_use]
    pub fn new(total: usize) -> Self {
        let share = (total / SHARES).max(1);
        let (used, used_by) = (AtomicUsize::new(0), Mutex::default());
        Self(Arc::new(BudgetState { total, share, used, used_by }))
    }

    /// Takes an amount, for this caller if it is known. An amount that is larger than the budget or
    /// the share is granted while nothing else of it is used.
    pub fn take(
        &self,
        caller: Option<K>,
        amount: usize,
    ) -> Result<BudgetPermit<K>, BudgetExceeded> {
        let mut permit = BudgetPermit { budget: self.clone(), caller, amount: 0 };
        permit.grow(amount)?;
        Ok(permit)
    }

    /// Takes an amount even if the budget is exceeded by it.
    #[must_use]
    pub fn take_anyway(&self, caller: Option<K>, amount: usize) -> BudgetPermit<K> {
        self.0.used.fetch_add(amount, Ordering::Relaxed);
        if let Some(caller) = &caller {
            *self.0.used_by.lock().entry(caller.clone()).or_default() += amount;
        }
        BudgetPermit { budget: self.clone(), caller, amount }
    }

    /// `held`: what the permit that grows has already.
    fn try_use(
        &self,
        caller: Option<&K>,
        held: usize,
        amount: usize,
    ) -> Result<(), BudgetExceeded> {
        if amount == 0 {
            return Ok(());
        }
        let BudgetState { total, share, used, used_by } = &*self.0;
        let fits = |used: usize, limit: usize| {
            let sum = used.saturating_add(amount);
            (used == held || sum <= limit).then_some(sum)
        };
        let mut used_by = caller.map(|caller| (caller, used_by.lock()));
        let own = match &mut used_by {
            Some((caller, used_by)) => {
                let own = used_by.get(*caller).copied().unwrap_or_default();
                fits(own, *share).ok_or(BudgetExceeded::Share)?
            }
            None => 0,
        };
        used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| fits(used, *total))
            .map_err(|_| BudgetExceeded::Total)?;
        if let Some((caller, used_by)) = &mut used_by {
            used_by.insert((*caller).clone(), own);
        }
        Ok(())
    }
}

impl<K: Eq + Hash> Clone for Budget<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// A part of a budget, returned when it is dropped.
#[derive(Debug)]
pub struct BudgetPermit<K: Eq + Hash> {
    budget: Budget<K>,
    caller: Option<K>,
    amount: usize,
}

impl<K: Eq + Hash + Clone> BudgetPermit<K> {
    /// Takes so much more.
    pub fn grow(&mut self, amount: usize) -> Result<(), BudgetExceeded> {
        self.budget.try_use(self.caller.as_ref(), self.amount, amount)?;
        self.amount += amount;
        Ok(())
    }
}

impl<K: Eq + Hash> Drop for BudgetPermit<K> {
    fn drop(&mut self) {
        let BudgetState { used, used_by, .. } = &*self.budget.0;
        if let Some(caller) = &self.caller {
            let mut used_by = used_by.lock();
            if let Some(own) = used_by.get_mut(caller) {
                *own = own.saturating_sub(self.amount);
                if *own == 0 {
                    used_by.remove(caller);
                }
            }
        }
        used.fetch_sub(self.amount, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_gets_its_share_and_leaves_the_rest_to_others() {
        let budget = Budget::new(40);
        let first = budget.take(Some("a"), 6).expect("room");
        let second = budget.take(Some("a"), 4).expect("room");
        assert_eq!(budget.take(Some("a"), 1).err(), Some(BudgetExceeded::Share));
        let _other = budget.take(Some("b"), 10).expect("room for another");
        assert_eq!(budget.take(Some("b"), 1).err(), Some(BudgetExceeded::Share));
        drop((first, second));
        assert!(budget.take(Some("a"), 10).is_ok());
    }

    #[test]
    fn all_callers_together_get_no_more_than_the_budget() {
        let budget = Budget::new(10);
        let all = budget.take(None, 8).expect("room");
        assert_eq!(budget.take(Some("a"), 3).err(), Some(BudgetExceeded::Total));
        assert!(budget.take(Some("a"), 2).is_ok(), "a refusal leaves no trace");
        drop(all);
        assert!(budget.take(None, 10).is_ok());
    }

    #[test]
    fn an_amount_that_is_larger_than_all_is_granted_alone() {
        let budget = Budget::new(8);
        let large = budget.take(Some("a"), 100).expect("alone");
        assert_eq!(budget.take(Some("b"), 1).err(), Some(BudgetExceeded::Total));
        drop(large);
        let mut growing = budget.take(Some("a"), 2).expect("room");
        assert_eq!(growing.grow(100), Ok(()), "still alone");
        drop(growing);
        let owed = budget.take_anyway(Some("a"), 100);
        assert_eq!(budget.take(Some("a"), 1).err(), Some(BudgetExceeded::Share));
        drop(owed);
        assert!(budget.0.used_by.lock().is_empty());
        assert_eq!(budget.0.used.load(Ordering::Relaxed), 0);
    }
}
