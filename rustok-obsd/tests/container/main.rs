//! Cgroups by cAdvisor's names: against what cAdvisor itself told, and on this host's own cgroups.

mod cgroups;
mod fixture;
mod load;
mod real;
