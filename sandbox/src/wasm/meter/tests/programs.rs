//! Random programs that mostly end: what wasm-smith seldom writes, loops that go round, left and continued from everywhere.

use std::fmt::Write as _;

use arbtest::arbitrary::{Result, Unstructured};

/// How deep statements nest.
const DEPTH_MAX: usize = 5;
/// Functions of a program: each calls only those before it.
const FUNCTIONS: usize = 4;
/// Locals that expressions use; the loops' counters come after.
const LOCALS: usize = 4;
/// Counters: as many loops as may go round.
const COUNTERS: usize = 24;

struct Label {
    /// How many `i32` a branch to it carries.
    carries: usize,
    /// For a loop, its counter, and whether it is tested on top, so that all branches back are safe.
    counter: Option<(usize, bool)>,
}

struct Writer<'u, 'd> {
    u: &'u mut Unstructured<'d>,
    text: String,
    labels: Vec<Label>,
    counters: usize,
    /// Results of the functions so far, and of this one.
    results: Vec<usize>,
}

/// A program in text form: exports `f0` to `f3`, each with two parameters, a memory, a table and a global.
pub(crate) fn program(u: &mut Unstructured<'_>) -> Result<String> {
    let mut text = String::from(
        "(module (memory (export \"memory\") 1 3) (table (export \"table\") 8 16 funcref)\n\
         (global $g (export \"g\") (mut i64) (i64.const 0)) (data $d \"0123456789\") (elem $e func $f0 $f0)\n\
         (elem (i32.const 0) $f0 $f1 $f2 $f3) (type $t (func (param i32 i32) (result i32)))\n",
    );
    let mut results = vec![];
    for function in 0..FUNCTIONS {
        results.push(u.int_in_range(0..=2)?);
        let label = Label { carries: *results.last().expect("just pushed"), counter: None };
        let labels = vec![label];
        let mut writer =
            Writer { u, text: String::new(), labels, counters: 0, results: results.clone() };
        writer.statements(0)?;
        writer.values(writer.labels[0].carries)?;
        let body = writer.text;
        let result = " i32".repeat(results[function]);
        let locals = " i32".repeat(LOCALS - 2 + COUNTERS);
        let _ = writeln!(
            text,
            "(func $f{function} (export \"f{function}\") (param i32 i32) (result{result}) (local{locals})\n{body})"
        );
    }
    text.push(')');
    Ok(text)
}

impl Writer<'_, '_> {
    fn put(&mut self, instruction: &str) {
        self.text.push_str(instruction);
        self.text.push('\n');
    }

    fn below(&mut self, end: usize) -> Result<usize> {
        self.u.int_in_range(0..=end - 1)
    }

    fn local(&mut self) -> Result<usize> {
        self.below(LOCALS)
    }

    fn value(&mut self) -> Result<()> {
        match self.below(6)? {
            0 | 1 => {
                let local = self.local()?;
                self.put(&format!("local.get {local}"));
            }
            2 => {
                let constant = self.u.int_in_range(-3..=9)?;
                self.put(&format!("i32.const {constant}"));
            }
            3 => {
                let (one, other) = (self.local()?, self.local()?);
                let operator = ["add", "sub", "xor", "mul", "lt_u", "shl"][self.below(6)?];
                self.put(&format!("local.get {one}\nlocal.get {other}\ni32.{operator}"));
            }
            4 => {
                let local = self.local()?;
                self.put(&format!("local.get {local}\ni32.const 65535\ni32.and\ni32.load8_u"));
            }
            _ => {
                let (one, other) = (self.local()?, self.local()?);
                self.put(&format!(
                    "local.get {one}\nlocal.get {other}\ni32.const 1\ni32.or\ni32.rem_u"
                ));
            }
        }
        Ok(())
    }

    fn values(&mut self, count: usize) -> Result<()> {
        (0..count).try_for_each(|_| self.value())
    }

    fn statements(&mut self, depth: usize) -> Result<()> {
        let count = self.u.int_in_range(0..=if depth == 0 { 8 } else { 3 })?;
        (0..count).try_for_each(|_| self.statement(depth))
    }

    fn statement(&mut self, depth: usize) -> Result<()> {
        let kinds = if depth < DEPTH_MAX { 16 } else { 9 };
        match self.below(kinds)? {
            0 | 1 => self.set(),
            2 => {
                self.put("global.get $g\ni64.const 3\ni64.mul");
                self.value()?;
                self.put("i64.extend_i32_u\ni64.add\nglobal.set $g");
                Ok(())
            }
            3 => {
                self.value()?;
                self.put("i32.const 65535\ni32.and");
                self.value()?;
                self.put("i32.store8");
                Ok(())
            }
            4 | 5 => self.branch(true),
            6 => self.branch(false),
            7 => self.call(),
            8 => self.bulk(),
            9 | 10 => self.block(depth),
            11 | 12 => self.choice(depth),
            13 => self.table(depth),
            _ => self.repeat(depth),
        }
    }

    fn set(&mut self) -> Result<()> {
        self.value()?;
        let local = self.local()?;
        self.put(&format!("local.set {local}"));
        Ok(())
    }

    /// A branch to any label around, with its values; what is left of them is dropped.
    fn branch(&mut self, tested: bool) -> Result<()> {
        let depth = self.below(self.labels.len())?;
        let label = &self.labels[self.labels.len() - 1 - depth];
        let carries = label.carries;
        let counter = label.counter.and_then(|(counter, tested)| (!tested).then_some(counter));
        self.values(carries)?;
        if let Some(counter) = counter {
            self.count(counter);
            self.put(&format!("br_if {depth}"));
        } else if tested {
            self.value()?;
            self.put(&format!("br_if {depth}"));
        } else if depth == self.labels.len() - 1 && self.u.arbitrary()? {
            self.put("return");
            return Ok(());
        } else {
            self.put(&format!("br {depth}"));
            return Ok(());
        }
        (0..carries).for_each(|_| self.put("drop"));
        Ok(())
    }

    /// Counts down, and leaves whether to go on.
    fn count(&mut self, counter: usize) {
        let local = LOCALS + counter;
        let text = format!("local.get {local}\ni32.const 1\ni32.sub\nlocal.tee {local}");
        self.put(&format!("{text}\ni32.const 0\ni32.gt_s"));
    }

    fn call(&mut self) -> Result<()> {
        let callee = self.below(self.results.len())?;
        if callee + 1 == self.results.len() {
            return self.set();
        }
        let same = self.results[callee] == *self.results.last().expect("this function");
        self.values(2)?;
        match self.below(4)? {
            0 => {
                self.value()?;
                self.put("call_indirect (type $t)\ndrop");
                return Ok(());
            }
            1 if same => {
                self.put(&format!("return_call $f{callee}"));
                return Ok(());
            }
            _ => self.put(&format!("call $f{callee}")),
        }
        (0..self.results[callee]).for_each(|_| self.put("drop"));
        Ok(())
    }

    fn bulk(&mut self) -> Result<()> {
        let (one, other, size) = (self.below(99)?, self.below(99)?, self.below(40)?);
        let text = match self.below(8)? {
            0 => format!("i32.const {one}\ni32.const {other}\ni32.const {size}\nmemory.fill"),
            1 => format!("i32.const {one}\ni32.const {other}\ni32.const {size}\nmemory.copy"),
            2 => format!("i32.const {one}\ni32.const 0\ni32.const {}\nmemory.init $d", size % 12),
            3 => format!("i32.const {}\nmemory.grow\ndrop", size % 3),
            4 => format!("ref.null func\ni32.const {}\ntable.grow\ndrop", size % 3),
            5 => format!("i32.const {}\ni32.const 0\ni32.const {}\ntable.copy", one % 4, size % 6),
            6 => format!("i32.const {}\nref.func $f0\ni32.const {}\ntable.fill", one % 4, size % 6),
            _ => {
                format!("i32.const {}\ni32.const 0\ni32.const {}\ntable.init $e", one % 4, size % 3)
            }
        };
        self.put(&text);
        Ok(())
    }

    fn inside(&mut self, label: Label, depth: usize) -> Result<()> {
        self.labels.push(label);
        self.statements(depth + 1)?;
        self.labels.pop();
        Ok(())
    }

    fn block(&mut self, depth: usize) -> Result<()> {
        let carries = self.below(3)?;
        self.put(&format!("block (result{})", " i32".repeat(carries)));
        self.inside(Label { carries, counter: None }, depth)?;
        self.values(carries)?;
        self.put("end");
        (0..carries).for_each(|_| self.put("drop"));
        Ok(())
    }

    fn choice(&mut self, depth: usize) -> Result<()> {
        let carries = self.below(2)?;
        self.value()?;
        self.put(&format!("if (result{})", " i32".repeat(carries)));
        self.inside(Label { carries, counter: None }, depth)?;
        self.values(carries)?;
        if carries > 0 || self.u.arbitrary()? {
            self.put("else");
            self.inside(Label { carries, counter: None }, depth)?;
            self.values(carries)?;
        }
        self.put("end");
        (0..carries).for_each(|_| self.put("drop"));
        Ok(())
    }

    /// A `br_table` to labels that carry nothing and may be branched to at any time.
    fn table(&mut self, depth: usize) -> Result<()> {
        self.put("block\nblock");
        self.labels.push(Label { carries: 0, counter: None });
        self.labels.push(Label { carries: 0, counter: None });
        let fit = |label: &Label| label.carries == 0 && label.counter.is_none_or(|(_, top)| top);
        let labels = self.labels.iter().rev().enumerate().filter(|(_, label)| fit(label));
        let fitting: Vec<_> = labels.map(|(depth, _)| depth).collect();
        self.value()?;
        let mut text = String::from("br_table");
        for _ in 0..=self.below(5)? {
            let _ = write!(text, " {}", fitting[self.below(fitting.len())?]);
        }
        self.put(&text);
        self.put("end");
        self.labels.pop();
        self.statements(depth + 1)?;
        self.labels.pop();
        self.put("end");
        Ok(())
    }

    fn repeat(&mut self, depth: usize) -> Result<()> {
        if self.counters == COUNTERS {
            return self.set();
        }
        let counter = self.counters;
        self.counters += 1;
        let times = self.u.int_in_range(0..=19)?;
        self.put(&format!("i32.const {times}\nlocal.set {}", LOCALS + counter));
        match self.below(4)? {
            0 => self.while_loop(depth, counter),
            1 => self.loop_with_parameters(depth, counter),
            _ => self.do_loop(depth, counter),
        }
    }

    /// Tested on top, left by a branch.
    fn while_loop(&mut self, depth: usize, counter: usize) -> Result<()> {
        self.put("block\nloop");
        self.labels.push(Label { carries: 0, counter: None });
        self.count(counter);
        self.put("i32.eqz\nbr_if 1");
        self.inside(Label { carries: 0, counter: Some((counter, true)) }, depth)?;
        self.labels.pop();
        self.put("br 0\nend\nend");
        Ok(())
    }

    /// Tested at the bottom, with or without something after the test, and results.
    fn do_loop(&mut self, depth: usize, counter: usize) -> Result<()> {
        let carries = self.below(2)?;
        self.put(&format!("loop (result{})", " i32".repeat(carries)));
        self.labels.push(Label { carries: 0, counter: Some((counter, false)) });
        self.statements(depth + 1)?;
        self.count(counter);
        self.put("br_if 0");
        if self.u.arbitrary()? {
            self.statements(depth + 1)?;
        }
        self.labels.pop();
        self.values(carries)?;
        self.put("end");
        (0..carries).for_each(|_| self.put("drop"));
        Ok(())
    }

    fn loop_with_parameters(&mut self, depth: usize, counter: usize) -> Result<()> {
        self.value()?;
        let local = self.local()?;
        self.put(&format!("loop (param i32) (result i32)\nlocal.set {local}"));
        self.inside(Label { carries: 1, counter: Some((counter, false)) }, depth)?;
        self.value()?;
        self.count(counter);
        self.put(&format!("br_if 0\nend\nlocal.set {local}"));
        Ok(())
    }
}
