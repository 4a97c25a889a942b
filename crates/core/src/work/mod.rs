//! What is done with whole images besides mounting them: pulling, comparing, verifying, publishing,
//! lists of platforms.

mod compare;
mod export;
mod images;
mod lists;
mod publish;
mod pull;
mod unpack;
mod verify;

pub use compare::{Compared, Comparison, Cost, Differences, Unopened};
pub use export::{Export, split_last};
pub use images::{Images, MountedImage, Name, Sizes, Target, Users, is_beside};
pub use lists::{BlobsPlaced, ListPush, Lists, PushedList, PushedMember, member_of};
pub use publish::{PublishedImage, PublishedLayer, build, builds, publish};
pub use pull::{Pulled, PulledLayer, Puller};
pub use unpack::Unpacking;
pub use verify::{Damage, Kind, Outcome, Tally, Verified, Verifying, verify};
