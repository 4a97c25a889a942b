//! Names without a registry host: which images they may stand for, as podman decides it.
//!
//! ```text
//! 1. an alias        imgfs's own, then what podman has recorded, then registries.conf
//! 2. searching       unqualified-search-registries of imgfs's own, else of registries.conf, in order
//! 3. otherwise       Docker Hub
//! ```
//!
//! `docker://name` always is Docker Hub. With several registries to search, `short-name-mode =
//! "enforcing"` refuses to guess; a user is never asked.

use std::path::Path;

use super::configuration::Configuration;
use super::error::RouteError;
use super::own::Own;
use super::registries_conf::RegistriesConf;
use super::short_name_settings::{Alias, ShortNameMode};
use super::text_file::TextFile;
use imgfs_formats::oci::{DEFAULT_REGISTRY, Location, Reference, ShortName};

/// The images that a text may stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidates {
    /// To be tried in this order: the first that exists is meant. Never empty; only short names
    /// have several.
    pub references: Vec<Reference>,
    /// For people: which file made them of a short name; `None` where none did.
    pub why: Option<String>,
}

/// Says which images a text may stand for. Reads configuration files for short names only: not for
/// async threads.
pub fn candidates(text: &str, configuration: &Configuration) -> Result<Candidates, RouteError> {
    let reference: Reference = text.parse()?;
    let as_written = Candidates {
        references: vec![reference],
        why: None,
    };
    let Some(short) = ShortName::parse(text) else {
        return Ok(as_written);
    };
    let own = super::own::read(configuration)?;
    let registries = super::registries_conf::read(&configuration.registries)?;
    if let Some(alias) = alias(&short, &own, &registries, configuration)? {
        return Ok(Candidates {
            references: vec![aliased(&short, &alias)?],
            why: Some(format!("alias in {}", alias.file.display())),
        });
    }
    let Some(search) = own.search.or(registries.search) else {
        return Ok(as_written);
    };
    let mut references: Vec<Reference> = Vec::new();
    for registry in &search.registries {
        let result = format!("{registry}/{}{}", short.name, short.suffix);
        let reference = full_name(&result)
            .map_err(|problem| not_a_name(&short, result, &search.file, problem))?;
        if !references.contains(&reference) {
            references.push(reference);
        }
    }
    match own.mode.or(registries.mode) {
        _ if references.is_empty() => Ok(as_written),
        Some((ShortNameMode::Enforcing, file)) if references.len() > 1 => {
            Err(RouteError::Ambiguous {
                name: text.trim().to_owned(),
                names: references.iter().map(ToString::to_string).collect(),
                file,
            })
        }
        _ => Ok(Candidates {
            references,
            why: Some(format!(
                "unqualified-search-registries in {}",
                search.file.display()
            )),
        }),
    }
}

/// The registries in which a name without one is searched for: those that files name, else Docker
/// Hub. Reads files: not for async threads.
pub fn search_registries(configuration: &Configuration) -> Result<Vec<String>, RouteError> {
    let own = super::own::read(configuration)?;
    let registries = super::registries_conf::read(&configuration.registries)?;
    let named = own
        .search
        .or(registries.search)
        .map(|search| search.registries);
    let named = named.filter(|registries| !registries.is_empty());
    Ok(named.unwrap_or_else(|| vec![DEFAULT_REGISTRY.to_owned()]))
}

/// The alias that holds, if any.
fn alias(
    short: &ShortName,
    own: &Own,
    registries: &RegistriesConf,
    configuration: &Configuration,
) -> Result<Option<Alias>, RouteError> {
    if let Some(alias) = own.aliases.get(&short.name) {
        // An empty one says that the others' aliases do not count.
        return Ok(Some(alias.clone()).filter(|alias| !alias.target.is_empty()));
    }
    let mut recorded = RegistriesConf::default();
    if let Some(path) = &configuration.recorded_aliases
        && let Some(file) = TextFile::read(path)?
    {
        recorded.take(&file)?;
    }
    let mut found = recorded.aliases.remove(&short.name);
    if found.is_none() {
        found = registries.aliases.get(&short.name).cloned();
    }
    Ok(found)
}

fn aliased(short: &ShortName, alias: &Alias) -> Result<Reference, RouteError> {
    let has_version = match alias.target.rsplit_once('/') {
        Some((_, last)) => last.contains([':', '@']),
        None => true,
    };
    let result = format!("{}{}", alias.target, short.suffix);
    if has_version {
        let problem = "an alias is a full name without tag and digest".to_owned();
        return Err(not_a_name(short, result, &alias.file, problem));
    }
    full_name(&result).map_err(|problem| not_a_name(short, result, &alias.file, problem))
}

/// A reference that says which registry it is in.
fn full_name(text: &str) -> Result<Reference, String> {
    let reference: Reference = text
        .parse()
        .map_err(|cause: imgfs_formats::oci::ReferenceError| cause.to_string())?;
    let is_registry = matches!(reference.location(), Location::Registry { .. });
    if !is_registry || ShortName::parse(text).is_some() {
        return Err("it does not begin with a registry's host".to_owned());
    }
    Ok(reference)
}

fn not_a_name(short: &ShortName, result: String, file: &Path, problem: String) -> RouteError {
    RouteError::ShortName {
        name: short.name.clone(),
        result,
        file: file.to_owned(),
        problem,
    }
}
