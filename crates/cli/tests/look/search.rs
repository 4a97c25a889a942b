//! Searching registries: both forms of the API, many pages, servers that know neither.

use serde_json::{Value, json};

use super::*;
use crate::support::registry::{Fault, On, Registry};

/// A result as Docker Hub writes it.
fn hubs(name: &str, stars: u64, description: &str) -> Value {
    json!({
        "name": name, "description": description, "star_count": stars, "is_official": stars > 100,
        "is_automated": stars == 50, "is_trusted": false,
    })
}

/// A registry with a page of results for `go`.
fn docker_form(registry: &Registry) {
    let results = [
        hubs(
            "golang",
            5000,
            "Go (golang) is a general purpose, higher-level, imperative programming language.",
        ),
        hubs("a/evil", 50, "line\none\u{1b}[2J"),
        hubs("b/none", 0, ""),
    ];
    let page = json!({"num_pages": 1, "num_results": 3, "results": results, "page_size": 25, "query": "go", "page": 1});
    registry.answer("/v1/search?q=go&n=25", &page);
}

#[test]
fn what_a_registry_finds_is_listed_as_docker_lists_it() {
    let world = World::new();
    docker_form(&world.registry);
    let term = world.registry.reference("go");
    let search = |options: &[&str]| {
        let arguments = [&["search", "--plain-http"], options, &[&term]].concat();
        world.imgfs(&arguments)
    };
    let host = world.registry.host();
    let table = search(&[]).ok();
    let lines: Vec<&str> = table.lines().collect();
    let words = |line: &str| {
        line.split("  ")
            .map(str::trim)
            .filter(|one| !one.is_empty())
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        words(lines[0]),
        ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]
    );
    let golang = format!("{host}/golang");
    let cut = "Go (golang) is a general purpose, higher-l...";
    assert_eq!(words(lines[1]), [golang.as_str(), cut, "5000", "[OK]"]);
    assert_eq!(
        words(lines[2]),
        [&format!("{host}/a/evil"), "line one\\u{1b}[2J", "50"]
    );
    assert_eq!(lines.len(), 4);
    assert_eq!(world.registry.log(), ["GET /v1/search 200"]);

    let whole = search(&["--no-trunc"]).ok();
    assert!(
        whole.contains("imperative programming language.  "),
        "{whole}"
    );
    let rows = schema::check("search", &search(&["--json"]).ok());
    assert_eq!(rows[1]["description"], "line one\u{1b}[2J");
    assert_eq!(rows[0]["stars"], 5000);
    let check = |options: &[&str], expected: &[&str]| {
        let format = ["--format", "{{.Name}} {{.StarCount}} {{.IsOfficial}}"];
        let found = search(&[&format, options].concat()).ok();
        let expected = expected
            .iter()
            .map(|line| format!("{host}/{line}\n"))
            .collect::<String>();
        assert_eq!(found, expected, "{options:?}");
    };
    check(&["--filter", "is-official=true"], &["golang 5000 [OK]"]);
    check(
        &["-f", "stars=50", "-f", "is-official=false"],
        &["a/evil 50 "],
    );
    check(&["--filter=is-automated=true"], &["a/evil 50 "]);
    check(&["--filter=is-automated=true", "--filter=stars=51"], &[]);
    search(&["--limit", "0"]).fails(2, &["outside the range of [1, 100]"]);
    search(&["--limit", "101"]).fails(2, &["outside the range of [1, 100]"]);
    search(&["--filter", "nice"]).fails(2, &["is-official=true"]);
    world
        .imgfs(&["search", &format!("{host}/")])
        .fails(1, &["nothing to search for"]);
}

#[test]
fn pages_are_asked_for_until_the_limit() {
    let world = World::new();
    let page = |number: usize, pages: usize| {
        let results: Vec<Value> = (0..25)
            .map(|i| hubs(&format!("r/{number}-{i}"), 1, ""))
            .collect();
        json!({"num_pages": pages, "results": results, "page": number})
    };
    for number in 1..=4 {
        let query = if number == 1 {
            String::new()
        } else {
            format!("&page={number}")
        };
        world
            .registry
            .answer(&format!("/v1/search?q=go&n=60{query}"), &page(number, 4));
        // A server that knows no pages, and one that says it has more of them than there are.
        world
            .registry
            .answer(&format!("/v1/search?q=same&n=60{query}"), &page(1, 9));
    }
    let count = |term: &str| {
        world.registry.forget_requests();
        let term = world.registry.reference(term);
        let found = world
            .imgfs(&["search", "--plain-http", "--json", "--limit", "60", &term])
            .ok();
        let found: Value = serde_json::from_str(&found).unwrap();
        (
            found.as_array().unwrap().len(),
            world.registry.requests().len(),
        )
    };
    assert_eq!(count("go"), (60, 3));
    assert_eq!(count("same"), (25, 2));
}

#[test]
fn other_hosts_may_speak_quays_form() {
    let world = World::new();
    let result = |number: usize| {
        json!({
            "kind": "repository", "title": "Repo", "name": format!("etcd{number}"), "description": "# etcd\n\nA store",
            "namespace": {"kind": "organization", "name": "coreos"}, "is_public": true, "stars": number,
            "href": "/repository/coreos/etcd", "score": 1.5,
        })
    };
    let page = |number: usize, more: bool| json!({"results": [result(2 * number), result(2 * number + 1)], "has_additional": more, "page": number});
    let registry = &world.registry;
    registry.answer("/api/v1/find/repositories?query=etcd", &page(1, true));
    registry.answer(
        "/api/v1/find/repositories?query=etcd&page=2",
        &page(2, false),
    );
    let term = registry.reference("etcd");
    let found = world
        .imgfs(&["search", "--plain-http", "--json", &term])
        .ok();
    let rows = schema::check("search", &found);
    assert_eq!(rows.as_array().unwrap().len(), 4);
    let expected = json!({
        "index": registry.host(), "name": registry.reference("coreos/etcd5"), "description": "# etcd A store",
        "stars": 5, "official": false, "automated": false,
    });
    assert_eq!(rows[3], expected);
    let log = [
        "GET /v1/search 404",
        "GET /api/v1/find/repositories 200",
        "GET /api/v1/find/repositories 200",
    ];
    assert_eq!(registry.log(), log);
}

#[test]
fn a_registry_without_search_says_what_else_to_do() {
    let world = World::new();
    let term = world.registry.reference("go");
    let search = || world.imgfs(&["search", "--plain-http", &term]);
    let host = world.registry.host();
    search().fails(
        1,
        &[
            &format!("{host} has no search API"),
            &format!("imgfs tags {host}/NAME"),
        ],
    );
    // A page for browsers is no answer either.
    world
        .registry
        .answer("/v1/search?q=go&n=25", &"<!DOCTYPE html><html></html>");
    search().fails(1, &["has no search API"]);
    world
        .registry
        .answer("/v1/search?q=go&n=25", &json!({"results": "many"}));
    search().fails(1, &["the search: the results are not valid"]);
    world
        .registry
        .answer("/v1/search?q=go&n=25", &" ".repeat(5 << 20));
    search().fails(1, &["more than the limit"]);
}

#[test]
fn failures_that_pass_are_tried_again_and_a_login_is_used() {
    let world = World::new();
    docker_form(&world.registry);
    let term = world.registry.reference("go");
    let search = || world.imgfs(&["search", "--plain-http", &term]);
    world.registry.fault(On::Answer, Fault::Status(503));
    search().ok();
    let log = ["GET /v1/search 503", "GET /v1/search 200"];
    assert_eq!(world.registry.log(), log);
    world.registry.fault(On::Answer, Fault::Status(418));
    search().fails(1, &["unexpected status 418"]);

    world.registry.require_basic("me", "secret");
    search().fails(1, &["refuses access"]);
    let mut command = world.command(world::IMGFS);
    let user = ["--username", "me", "--password-stdin"];
    command
        .args(["search", "--plain-http"])
        .args(user)
        .arg(&term);
    let found = process::run_with_input(&mut command, "secret\n").ok();
    assert!(found.contains("golang"), "{found}");
}

#[test]
fn the_registries_for_short_names_are_searched() {
    let (world, other) = (World::new(), Registry::start());
    docker_form(&world.registry);
    let own = world.path(".config/imgfs");
    std::fs::create_dir_all(&own).unwrap();
    let hosts = [world.registry.host(), other.host()];
    let config = format!("unqualified-search-registries = {}\n", json!(hosts));
    std::fs::write(own.join("config.toml"), config).unwrap();
    // One has no search: what the other has is shown all the same.
    let found = world.imgfs(&["search", "--plain-http", "--format", "{{.Index}}", "go"]);
    let indexes = found.ok_saying(&[&format!("not searched: {} has no search API", hosts[1])]);
    assert_eq!(indexes, format!("{}\n", hosts[0]).repeat(3));
}

#[test]
fn docker_hub_and_quay_are_asked_where_they_answer() {
    let world = World::new();
    // A proxy through which nothing gets: it is seen who would be asked.
    let asked = |term: &str| {
        let mut command = world.command(world::IMGFS);
        command
            .env("HTTPS_PROXY", "http://127.0.0.1:1")
            .args(["-vv", "search", term]);
        process::run(&mut command).stderr
    };
    let check = |term: &str, url: &str| {
        let said = asked(term);
        assert!(said.contains(url), "{term}: {said}");
    };
    check("golang", "GET https://index.docker.io/v1/search");
    check(
        "docker.io/library/golang",
        "GET https://index.docker.io/v1/search",
    );
    check(
        "quay.io/etcd",
        "GET https://quay.io/api/v1/find/repositories",
    );
}
