//! Nodes and a row to text.

use std::borrow::Cow;

use serde_json::Value;

use super::functions::{self, Use};
use super::{
    Base, Branch, BranchKind, Node, Operand, Pipeline, TemplateError, error, is_true, text_of,
};

/// Bytes that one row may become, and rounds of loops: more is a slip that would fill the memory or
/// never end.
const MAX_OUTPUT: usize = 1 << 20;

/// Why a list of nodes was left.
#[derive(PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

struct Running<'a> {
    row: &'a Value,
    purpose: Use,
    /// The innermost last.
    variables: Vec<(String, Value)>,
    /// In how many loops it is.
    loops: usize,
    rounds: usize,
    output: String,
}

pub(super) fn run(nodes: &[Node], row: &Value, purpose: Use) -> Result<String, TemplateError> {
    let mut running = Running {
        row,
        purpose,
        variables: vec![(String::new(), row.clone())],
        loops: 0,
        rounds: 0,
        output: String::new(),
    };
    running.nodes(nodes, row)?;
    Ok(running.output)
}

impl Running<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, TemplateError> {
        let outer = self.variables.len();
        let mut flow = Flow::Next;
        for node in nodes {
            match node {
                Node::Text(text) => self.print(text)?,
                Node::Print(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.variables.is_empty() {
                        self.print(&text_of(&value))?;
                    } else {
                        self.set(pipeline, &[value])?;
                    }
                }
                Node::Branch(branch) => flow = self.branch(branch, dot)?,
                Node::Break | Node::Continue if self.loops == 0 => {
                    return error("break outside of range");
                }
                Node::Break => flow = Flow::Break,
                Node::Continue => flow = Flow::Continue,
            }
            if flow != Flow::Next {
                break;
            }
        }
        self.variables.truncate(outer);
        Ok(flow)
    }

    fn branch(&mut self, branch: &Branch, dot: &Value) -> Result<Flow, TemplateError> {
        let outer = self.variables.len();
        let value = self.pipeline(&branch.pipeline, dot)?;
        let flow = if branch.kind == BranchKind::Range {
            self.range(branch, &value, dot)?
        } else {
            if !branch.pipeline.variables.is_empty() {
                self.set(&branch.pipeline, std::slice::from_ref(&value))?;
            }
            match (is_true(&value), branch.kind) {
                (true, BranchKind::With) => self.nodes(&branch.then, &value)?,
                (true, _) => self.nodes(&branch.then, dot)?,
                (false, _) => self.nodes(&branch.otherwise, dot)?,
            }
        };
        self.variables.truncate(outer);
        Ok(flow)
    }

    fn range(
        &mut self,
        branch: &Branch,
        value: &Value,
        dot: &Value,
    ) -> Result<Flow, TemplateError> {
        if !is_true(value) {
            return self.nodes(&branch.otherwise, dot);
        }
        // With its own key: a position or a name.
        let items: Box<dyn Iterator<Item = (Value, Cow<'_, Value>)> + '_> = match value {
            Value::Array(items) => {
                let items = items.iter().enumerate();
                Box::new(items.map(|(i, item)| (i.into(), Cow::Borrowed(item))))
            }
            Value::Object(fields) => {
                let mut fields: Vec<_> = fields.iter().collect();
                fields.sort_by_key(|(name, _)| *name);
                let fields = fields.into_iter();
                Box::new(fields.map(|(name, item)| (name.clone().into(), Cow::Borrowed(item))))
            }
            Value::Number(count) if count.as_u64().is_some() => {
                let count = count.as_u64().unwrap_or_default();
                Box::new((0..count).map(|i| (i.into(), Cow::Owned(i.into()))))
            }
            _ => return error(format!("range over {}", text_of(value))),
        };
        self.loops += 1;
        let outer = self.variables.len();
        for (key, item) in items {
            self.rounds += 1;
            if self.rounds > MAX_OUTPUT {
                return error("its loops are too long");
            }
            match branch.pipeline.variables.len() {
                0 => {}
                1 => self.set(&branch.pipeline, &[item.clone().into_owned()])?,
                _ => self.set(&branch.pipeline, &[key, item.clone().into_owned()])?,
            }
            let flow = self.nodes(&branch.then, &item)?;
            self.variables.truncate(outer);
            if flow == Flow::Break {
                break;
            }
        }
        self.loops -= 1;
        Ok(Flow::Next)
    }

    fn set(&mut self, pipeline: &Pipeline, values: &[Value]) -> Result<(), TemplateError> {
        for (name, value) in pipeline.variables.iter().zip(values) {
            if !pipeline.assigns {
                self.variables.push((name.clone(), value.clone()));
                continue;
            }
            let known = self.variables.iter_mut().rev();
            match known.into_iter().find(|(known, _)| known == name) {
                Some((_, known)) => *known = value.clone(),
                None => return error(format!("no variable ${name}")),
            }
        }
        Ok(())
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, TemplateError> {
        let mut last = None;
        for command in &pipeline.commands {
            last = Some(self.command(command, last, dot)?);
        }
        last.ok_or_else(|| TemplateError("there is nothing to print".to_owned()))
    }

    /// Calls a function with its operands and, at the end, what came through the pipe; or is just a
    /// value.
    fn command(
        &mut self,
        command: &[Operand],
        piped: Option<Value>,
        dot: &Value,
    ) -> Result<Value, TemplateError> {
        let Some((first, rest)) = command.split_first() else {
            return error("there is nothing to print");
        };
        let Operand::Function(name) = first else {
            if !rest.is_empty() || piped.is_some() {
                return error("what is given arguments is not a function");
            }
            return self.operand(first, dot);
        };
        let mut arguments = Vec::new();
        for operand in rest {
            let value = self.operand(operand, dot)?;
            // These look at no more than they need, as in Go.
            let is_decided = match name.as_str() {
                "and" => !is_true(&value),
                "or" => is_true(&value),
                _ => false,
            };
            if is_decided {
                return Ok(value);
            }
            arguments.push(value);
        }
        arguments.extend(piped);
        functions::call(name, &arguments, self.purpose)
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, TemplateError> {
        match operand {
            Operand::Constant(value) => Ok(value.clone()),
            Operand::Function(name) => functions::call(name, &[], self.purpose),
            Operand::Path { base, fields } => {
                let value = match base {
                    Base::Dot => Cow::Borrowed(dot),
                    Base::Variable(name) => {
                        let known = self.variables.iter().rev();
                        match known.into_iter().find(|(known, _)| known == name) {
                            Some((_, value)) => Cow::Owned(value.clone()),
                            None => return error(format!("no variable ${name}")),
                        }
                    }
                    Base::Pipeline(pipeline) => Cow::Owned(self.pipeline(pipeline, dot)?),
                };
                self.field(&value, fields)
            }
        }
    }

    fn field(&self, value: &Value, fields: &[String]) -> Result<Value, TemplateError> {
        let mut value = value;
        for name in fields {
            value = match value {
                Value::Object(known) => match known.get(name) {
                    Some(value) => value,
                    // A row has the fields it has; maps in it may or may not.
                    None if value == self.row => {
                        let known: Vec<&str> = known.keys().map(String::as_str).collect();
                        return error(format!("no field {name}: there are {}", known.join(", ")));
                    }
                    None => &Value::Null,
                },
                // Only the names of its columns are known.
                _ if self.purpose == Use::Headings => value,
                _ => return error(format!("no field {name} in {}", text_of(value))),
            };
        }
        Ok(value.clone())
    }

    fn print(&mut self, text: &str) -> Result<(), TemplateError> {
        if self.output.len() + text.len() > MAX_OUTPUT {
            return error("what it prints is too long");
        }
        self.output += text;
        Ok(())
    }
}
