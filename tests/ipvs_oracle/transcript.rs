//! What a director did in a scenario, line by line, and how two of them compare.

use std::fmt::Write;

use crate::director::Director;

/// A scenario: one story for both directors.
pub struct Scenario {
    pub name: &'static str,
    pub play: fn(&mut dyn Director, &mut Transcript),
}

/// What came of one.
#[derive(Debug, Default)]
pub struct Transcript {
    /// What it is about, and what was seen.
    lines: Vec<(String, String)>,
}

impl Transcript {
    /// Notes that of a subject this was seen. Lines of one subject are a row of the report.
    pub fn note(&mut self, subject: &str, seen: impl Into<String>) {
        self.lines.push((subject.to_owned(), seen.into()));
    }
}

/// A difference that is meant, with the place in docs/differences-from-ipvs.md that gives its reason.
pub struct Known {
    /// What subjects' names begin with.
    pub subject: &'static str,
    /// Whether it is this one that the kernel's and fullgate's lines show.
    pub shows: fn(kernel: &str, fullgate: &str) -> bool,
    /// A heading of that file.
    pub heading: &'static str,
}

/// A line that differs.
#[derive(Debug)]
pub struct Difference {
    pub subject: String,
    pub number: usize,
    pub kernel: String,
    pub fullgate: String,
}

/// A row of the report.
#[derive(Debug)]
pub struct Row {
    pub subject: String,
    pub compared: usize,
    pub explained: usize,
    pub unexplained: usize,
}

/// All scenarios' rows and differences.
#[derive(Debug, Default)]
pub struct Report {
    pub rows: Vec<Row>,
    pub unexplained: Vec<Difference>,
    /// By index into what is known: how often it was seen.
    pub seen: Vec<usize>,
}

impl Report {
    /// Compares what the kernel and fullgate did in a scenario.
    pub fn add(&mut self, scenario: &'static str, [kernel, fullgate]: [&Transcript; 2], known: &[Known]) {
        self.seen.resize(known.len(), 0);
        assert!(!kernel.lines.is_empty(), "{scenario}: nothing was compared");
        let mut subjects: Vec<&str> = Vec::new();
        for (subject, _) in kernel.lines.iter().chain(&fullgate.lines) {
            if !subjects.contains(&subject.as_str()) {
                subjects.push(subject);
            }
        }
        for subject in subjects {
            let row = self.compare(subject, [kernel, fullgate].map(|transcript| transcript.of(subject)), known);
            self.rows.push(row);
        }
    }

    fn compare(&mut self, subject: &str, [kernel, fullgate]: [Vec<&str>; 2], known: &[Known]) -> Row {
        let compared = kernel.len().max(fullgate.len());
        let mut row = Row { subject: subject.to_owned(), compared, explained: 0, unexplained: 0 };
        for number in 0..compared {
            let line = |lines: &[&str]| lines.get(number).copied().unwrap_or("(nothing)").to_owned();
            let (kernel, fullgate) = (line(&kernel), line(&fullgate));
            if kernel == fullgate {
                continue;
            }
            let place =
                known.iter().position(|known| subject.starts_with(known.subject) && (known.shows)(&kernel, &fullgate));
            match place {
                Some(place) => {
                    self.seen[place] += 1;
                    row.explained += 1;
                }
                None => {
                    row.unexplained += 1;
                    self.unexplained.push(Difference { subject: subject.to_owned(), number, kernel, fullgate });
                }
            }
        }
        row
    }

    /// The table, and the first differences of each row.
    pub fn text(&self) -> String {
        let mut text = format!("{:<44}{:>9}{:>11}{:>13}\n", "compared", "lines", "explained", "unexplained");
        for Row { subject, compared, explained, unexplained } in &self.rows {
            writeln!(text, "{subject:<44}{compared:>9}{explained:>11}{unexplained:>13}").unwrap();
        }
        for row in &self.rows {
            let of_row = self.unexplained.iter().filter(|difference| difference.subject == row.subject);
            for Difference { subject, number, kernel, fullgate } in of_row.take(6) {
                write!(text, "\n{subject}, line {number}\n  kernel   {kernel}\n  fullgate {fullgate}\n").unwrap();
            }
        }
        text
    }
}

impl Transcript {
    fn of(&self, subject: &str) -> Vec<&str> {
        self.lines.iter().filter(|(of, _)| of == subject).map(|(_, seen)| seen.as_str()).collect()
    }
}
