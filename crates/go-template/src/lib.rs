//! Go templates, as far as `--format` needs them: `{{.Repository}}:{{.Tag}}`, pipelines, `if`,
//! `with`, `range`, variables, and the functions of Go and of Docker's command line.
//!
//! A template is parsed once ([`Template::parse`]) and run on one JSON value for each row
//! ([`Template::run`]). Not here: `define`, `template` and `block`, which one line has no use for,
//! and Go's functions for web pages.

mod functions;
mod parse;
mod printf;
mod run;

use serde_json::Value;

/// A template for a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    nodes: Vec<Node>,
}

/// What a template says is wrong, or what a row lacks: for the user who wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("template: {0}")]
pub struct TemplateError(String);

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Text(String),
    Print(Pipeline),
    Branch(Branch),
    Break,
    Continue,
}

#[derive(Debug, Clone, PartialEq)]
struct Branch {
    kind: BranchKind,
    pipeline: Pipeline,
    then: Vec<Node>,
    otherwise: Vec<Node>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BranchKind {
    If,
    With,
    Range,
}

/// `$i, $x := first | second`
#[derive(Debug, Clone, PartialEq)]
struct Pipeline {
    variables: Vec<String>,
    /// `=` instead of `:=`.
    assigns: bool,
    commands: Vec<Vec<Operand>>,
}

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Constant(Value),
    Function(String),
    /// `.A.B`, `$x.A`, `(pipeline).A`
    Path {
        base: Base,
        fields: Vec<String>,
    },
}

#[derive(Debug, Clone, PartialEq)]
enum Base {
    Dot,
    Variable(String),
    Pipeline(Box<Pipeline>),
}

impl Template {
    /// Reads a template. As in Docker, `\t` and `\n` stand for a tab and a new line.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        let nodes = parse::parse(&text)?;
        Ok(Self { nodes })
    }

    /// Fills it with a row, an object. A field that the row does not have is an error.
    pub fn run(&self, row: &Value) -> Result<String, TemplateError> {
        run::run(&self.nodes, row, functions::Use::Rows)
    }

    /// Fills it with headings: functions leave them as they are.
    pub fn run_on_headings(&self, headings: &Value) -> Result<String, TemplateError> {
        run::run(&self.nodes, headings, functions::Use::Headings)
    }
}

fn error<T>(text: impl Into<String>) -> Result<T, TemplateError> {
    Err(TemplateError(text.into()))
}

/// A value as Go's `print` writes it.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<no value>".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(text_of).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(fields) => {
            let mut fields: Vec<String> = (fields.iter())
                .map(|(name, value)| format!("{name}:{}", text_of(value)))
                .collect();
            fields.sort();
            format!("map[{}]", fields.join(" "))
        }
    }
}

/// Whether Go takes a value for true: not empty, not zero.
fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row() -> Value {
        json!({
            "ID": "abc", "Tags": ["x", "y"], "N": 5, "Zero": 0, "F": 2.5, "Name": "hello WORLD",
            "Labels": {"b": "2", "a": "1"}, "None": [], "Yes": true, "Umlaut": "\u{e4}\u{4e00}b",
        })
    }

    /// What Go's text/template and Docker's functions print for the same.
    #[test]
    fn templates_say_what_go_says() {
        let check = |template: &str, expected: &str| {
            let parsed =
                Template::parse(template).unwrap_or_else(|err| panic!("{template}: {err}"));
            assert_eq!(parsed.run(&row()).as_deref(), Ok(expected), "{template}");
        };
        check("plain", "plain");
        check("", "");
        check("{{.ID}}", "abc");
        check("{{ .ID }}:{{.N}}", "abc:5");
        check(r"{{.ID}}\t{{.N}}\n", "abc\t5\n");
        check(
            "{{.Tags}} {{.Labels}} {{.Yes}} {{.F}}",
            "[x y] map[a:1 b:2] true 2.5",
        );
        check("{{.Labels.a}}{{.Labels.none}}", "1<no value>");
        check("{{json .}}", &row().to_string());
        check("{{json .Tags}}", r#"["x","y"]"#);
        check("a  {{- .ID -}}  b", "aabcb");
        check("a {{/* said nothing */}}b{{- /* here */ -}} c", "a bc");
        check(
            "{{`raw }} \\x`}}{{\"q\\\"\\u00e4 }}\"}}",
            "raw }} \\xq\"\u{e4} }}",
        );
        check(
            "{{'x'}} {{0x1f}} {{-3}} {{1.5}} {{true}}",
            "120 31 -3 1.5 true",
        );
        check("{{len .Tags}}{{len .ID}}{{len .Labels}}", "232");
        check(
            "{{index .Tags 1}}{{index .Labels \"b\"}}{{index .ID 0}}",
            "y297",
        );
        check(
            "{{slice .ID 1 2}}{{slice .ID 1}}{{slice .Tags 0 1}}",
            "bbc[x]",
        );
        check("{{range .Tags}}{{.}},{{end}}", "x,y,");
        check("{{range $i, $e := .Tags}}{{$i}}={{$e}} {{end}}", "0=x 1=y ");
        check(
            "{{range $k, $v := .Labels}}{{$k}}={{$v}} {{end}}",
            "a=1 b=2 ",
        );
        check("{{range .None}}x{{else}}none{{end}}", "none");
        check("{{range .Tags}}{{.}}{{break}}{{end}}", "x");
        check(
            "{{range .Tags}}{{if eq . \"x\"}}{{continue}}{{end}}{{.}}{{end}}",
            "y",
        );
        check("{{range .N}}{{.}}{{end}}", "01234");
        check("{{range .Tags}}{{$.ID}}{{end}}", "abcabc");
        check("{{if .Zero}}a{{else if .N}}b{{else}}c{{end}}", "b");
        check("{{if and .N .Zero}}a{{else}}{{or .Zero .ID}}{{end}}", "abc");
        check("{{if not .None}}empty{{end}}", "empty");
        check(
            "{{with .ID}}{{.}}{{else}}no{{end}}{{with .Zero}}x{{else with .N}}{{.}}{{end}}",
            "abc5",
        );
        check("{{$x := .ID}}{{$x}}{{$x = \"d\"}}{{$x}}", "abcd");
        check("{{$x := 1}}{{if true}}{{$x = 2}}{{end}}{{$x}}", "2");
        check(
            "{{eq .N 5}}{{eq .ID \"x\" \"abc\"}}{{ne .N 4}}",
            "truetruetrue",
        );
        check(
            "{{lt 1 2}}{{le 2 2}}{{gt .F 2}}{{ge \"b\" \"a\"}}",
            "truetruetruetrue",
        );
        check(
            "{{upper .ID}}{{lower .Name}}{{title \"a bc\"}}",
            "ABChello worldA Bc",
        );
        check(
            "{{join .Tags \"/\"}}{{index (split \"a:b\" \":\") 1}}",
            "x/yb",
        );
        check(
            "{{pad .ID 1 2}}|{{pad \"\" 3 3}}|{{truncate .Umlaut 2}}",
            " abc  ||\u{e4}\u{4e00}",
        );
        check("{{.ID | printf \"%s-%s\" \"a\"}}", "a-abc");
        check("{{.Tags | len | printf \"%03d\"}}", "002");
        check(
            "{{(index .Tags 0) | upper}}{{(print .ID 1 2 \"x\" .N)}}",
            "Xabc1 2x5",
        );
        check("{{println .ID .N}}", "abc 5\n");
        check("{{and 0 (index .Tags 9)}}{{or 1 (index .Tags 9)}}", "01");
        check("{{(json .Labels)}}", r#"{"b":"2","a":"1"}"#);
        check("\u{e9}{{.ID}}\u{4e00}", "\u{e9}abc\u{4e00}");
    }

    #[test]
    fn verbs_say_what_go_says() {
        let check = |arguments: &str, expected: &str| {
            let template = format!("{{{{printf {arguments}}}}}");
            let parsed =
                Template::parse(&template).unwrap_or_else(|err| panic!("{template}: {err}"));
            assert_eq!(parsed.run(&row()).as_deref(), Ok(expected), "{template}");
        };
        check(
            r#""%5s|%-5s|%.2s|%5.1s|" .ID .ID .ID .ID"#,
            "  abc|abc  |ab|    a|",
        );
        check(
            r#""%d|%5d|%-5d|%05d|%+d|% d" .N .N .N .N .N .N"#,
            "5|    5|5    |00005|+5| 5",
        );
        check(
            r#""%x %X %o %b %c %#x" 255 255 8 5 97 255"#,
            "ff FF 10 101 a 0xff",
        );
        check(
            r#""%x %q %v %v" .ID .ID .Tags .Labels"#,
            "616263 \"abc\" [x y] map[a:1 b:2]",
        );
        check(r#""%q" .Tags"#, "[\"x\" \"y\"]");
        check(r#""%t %v %5t" .Yes .Yes .Yes"#, "true true  true");
        check(
            r#""%f %.1f %6.2f %v %e" .F .F .F .F 1500.0"#,
            "2.500000 2.5   2.50 2.5 1.500000e+03",
        );
        check(r#""%*d|%-*d|" 4 .N 4 .N"#, "   5|5   |");
        check(r#""100%%" "#, "100%");
        check(r#""%d" .ID"#, "%!d(string=abc)");
        check(r#""%s %s" .ID"#, "abc %!s(MISSING)");
        check(r#""%s" .N"#, "%!s(int=5)");
        check(r#""x" .ID"#, "x%!(EXTRA string=abc)");
        check(r#""%""#, "%!(NOVERB)");
        check(r#""%z" .N"#, "%!z(int=5)");
        check("\"\u{e9}%s%4s\" .ID .Umlaut", "\u{e9}abc \u{e4}\u{4e00}b");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let check = |template: &str, expected: &str| {
            let said = match Template::parse(template) {
                Ok(parsed) => parsed.run(&row()).map_err(|err| err.to_string()),
                Err(err) => Err(err.to_string()),
            };
            let said = said.expect_err(template);
            assert!(said.contains(expected), "{template}: {said}");
        };
        check("{{.Foo}}", "no field Foo: there are ID, Tags,");
        check("{{if .Foo}}{{end}}", "no field Foo");
        check("{{$.Foo}}", "no field Foo");
        check("{{.ID.Foo}}", "no field Foo");
        check("{{.ID", "}} is missing");
        check("{{if .ID}}a", "{{end}} is missing");
        check("{{end}}", "unexpected {{end}}");
        check("{{else}}", "unexpected {{else}}");
        check("{{if}}{{end}}", "nothing");
        check("{{}}", "nothing");
        check("{{.ID |}}", "nothing");
        check("{{(.ID}}", ") is missing");
        check("{{.ID)}}", "unexpected )");
        check("{{nope .ID}}", "no function nope");
        check("{{define \"a\"}}{{end}}", "define is not supported");
        check("{{$y}}", "no variable $y");
        check("{{\"a}}", "unterminated");
        check("{{\"\\x4\"}}", "bad escape");
        check("{{@}}", "unexpected @");
        check("{{index .Tags 9}}", "9 is out of range");
        check("{{index .Tags -1}}", "-1 is out of range");
        check("{{slice .Umlaut 1 2}}", "1 is not between characters");
        check("{{slice .ID 2 1}}", "out of range");
        check("{{len .N}}", "len of 5");
        check("{{1 2}}", "not a function");
        check("{{.ID 2}}", "not a function");
        check("{{range .ID}}{{end}}", "range over abc");
        check("{{break}}", "break outside");
        check("{{upper}}", "upper takes 1");
        check("{{pad .ID 1 99999999}}", "at most");
        check("{{printf \"%99999d\" 1}}", "at most");
        check("{{lt 1 \"a\"}}", "cannot be compared");
        check(&"{{if 1}}".repeat(5000), "too deep");
        check(&format!("{{{{{}}}}}", "(".repeat(5000)), "too deep");
        check(
            "{{range 99999999}}{{range 99999999}}x{{end}}{{end}}",
            "too long",
        );
        check(
            "{{range 99999999}}{{range 99999999}}{{end}}{{end}}",
            "too long",
        );
    }

    /// Whatever is put together of a template's pieces is parsed and run without a panic.
    #[test]
    fn odd_templates_do_no_harm() {
        let pieces = [
            "{{",
            "}}",
            "{{-",
            " -}}",
            ".ID",
            ".Tags",
            ".",
            "|",
            "printf ",
            "\"%s\"",
            "\"%d%v%*x%[2]d%-08.3f\"",
            "\"%",
            "range ",
            "if ",
            "else",
            "end",
            " ",
            "$x",
            ":=",
            "=",
            "(",
            ")",
            "'",
            "`",
            "1",
            "-1",
            "0x",
            "1e9",
            "len ",
            "index ",
            "and ",
            "\u{e9}",
            "\u{4e00}",
            "/*",
            "*/",
            "\\u",
            "with ",
            "eq ",
            "lt ",
            ",",
            "[",
            "\"\\x4\"",
            "\"\\u00\u{e9}aaaa\"",
            "'\\x'",
            "nil",
            "true",
            "@",
            "99999999999999999999",
            "slice ",
            "pad ",
            "break",
            "truncate ",
            "join ",
            "json ",
            "range $i, $x := ",
        ];
        let mut random: u64 = 88_172_645_463_325_252;
        let mut next = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from(random % below as u64).unwrap()
        };
        let row = row();
        let mut worked = 0;
        for round in 0..60_000 {
            let mut text = String::new();
            for _ in 0..=next(9) {
                text += pieces[next(pieces.len())];
            }
            let text = if round % 3 > 0 {
                format!("{{{{{text}}}}}")
            } else {
                text
            };
            worked +=
                usize::from(Template::parse(&text).is_ok_and(|parsed| parsed.run(&row).is_ok()));
        }
        assert!(worked > 1000, "only {worked} were any use");
    }
}
