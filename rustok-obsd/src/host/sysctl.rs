//! Settings of the kernel that were asked for.
//!
//! Reads: the named files of `/proc/sys`. Yields: `node_sysctl_NAME`, with an index or a name per number where there are
//! several; `node_sysctl_info` for texts. Costs: one small file per setting.
//!
//! `fs.file-nr:total,current,max` names the numbers. Between the commas of a flag or variable a name without a dot goes on
//! with the list of names before it.

use super::named::{Named, value};
use super::{CollectError, Collector, Context, KeptFile, Settings, text};
use crate::contract::{Family, Kind};
use crate::exposition::Encoder;

const INFO: Family<'static> = super::family::gauge("node_sysctl_info", &["name", "value", "index"], "sysctl info");

/// The family whose name does not depend on the setting.
pub const FAMILIES: &[Family<'static>] = &[INFO];

struct Setting {
    name: String,
    file: KeptFile,
    family: Named,
    /// Families of named numbers.
    keys: Vec<Named>,
}

struct Sysctl {
    numbers: Vec<Setting>,
    texts: Vec<Setting>,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    let of = |list: &[String]| joined(list).iter().map(|item| Setting::new(settings, item)).collect();
    Box::new(Sysctl { numbers: of(&settings.options.sysctl_include), texts: of(&settings.options.sysctl_include_info) })
}

/// Puts together what commas took apart.
fn joined(list: &[String]) -> Vec<String> {
    let mut items: Vec<String> = Vec::new();
    for item in list {
        match items.last_mut() {
            Some(last) if last.contains(':') && !item.contains(['.', '/']) => {
                last.push(',');
                last.push_str(item);
            }
            _ => items.push(item.clone()),
        }
    }
    items
}

impl Setting {
    fn new(settings: &Settings, item: &str) -> Self {
        let (name, keys) = item.split_once(':').unwrap_or((item, ""));
        let metric = format!("node_sysctl_{name}");
        let keys = keys.split(',').filter(|key| !key.is_empty()).enumerate();
        let key = |(at, key)| Named::new(&format!("{metric}_{key}"), format!("sysctl {name}, field {at}"));
        Self {
            // As sysctl(8): a dot in a name is written as a slash and the other way round.
            file: settings.kept_procfs(&format!("sys/{}", name.replace('.', "/"))),
            family: Named::new(&metric, format!("sysctl {name}")),
            keys: keys.map(key).collect(),
            name: name.to_owned(),
        }
    }

    /// Its words; an error names the setting and the remedy.
    fn words(&mut self) -> Result<Vec<&str>, CollectError> {
        let Self { name, file, .. } = self;
        let content = file.read().map_err(|error| match error {
            CollectError::NoData(path) => CollectError::Other(format!(
                "sysctl {name}: {path} is absent; correct `collector.sysctl.include`, or load the module that has it"
            )),
            error => error,
        })?;
        let words: Vec<&str> = text::utf8(content).unwrap_or_default().split_ascii_whitespace().collect();
        if words.is_empty() { Err(CollectError::Other(format!("sysctl {name} has no value"))) } else { Ok(words) }
    }

    fn numbers(&mut self, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let name = self.name.clone();
        let words = self.words()?;
        let no_number = |word: &str| {
            CollectError::Other(format!(
                "sysctl {name}: `{word}` is no number; use `collector.sysctl.include_info` for texts"
            ))
        };
        let number = |word: &&str| value(word.as_bytes()).ok_or_else(|| no_number(word));
        let numbers = words.iter().map(number).collect::<Result<Vec<_>, _>>()?;
        if !self.keys.is_empty() && self.keys.len() != numbers.len() {
            let (there, named) = (numbers.len(), self.keys.len());
            return Err(CollectError::Other(format!(
                "sysctl {name} has {there} values, but {named} names were given; name each, or none"
            )));
        }
        for (named, number) in self.keys.iter().zip(&numbers) {
            out.family(&named.family(Kind::Untyped, &[])).put([], *number);
        }
        if self.keys.is_empty() && numbers.len() == 1 {
            out.family(&self.family.family(Kind::Untyped, &[])).put([], numbers[0]);
        } else if self.keys.is_empty() {
            let family = self.family.family(Kind::Untyped, &["index"]);
            let mut samples = out.family(&family);
            for (at, number) in numbers.iter().enumerate() {
                samples.put([itoa::Buffer::new().format(at)], *number);
            }
        }
        Ok(())
    }
}

impl Collector for Sysctl {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let mut result = Ok(());
        for setting in &mut self.numbers {
            result = result.and(setting.numbers(out));
        }
        let mut samples = out.family(&INFO);
        for setting in &mut self.texts {
            let name = setting.name.clone();
            match setting.words() {
                Ok(words) => words.iter().enumerate().for_each(|(at, word)| {
                    samples.put([name.as_str(), word, itoa::Buffer::new().format(at)], 1u64);
                }),
                Err(error) => result = result.and(Err(error)),
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use crate::host::testing::Tree;

    #[test]
    fn names_of_values_are_put_together_again_and_a_wrong_one_costs_itself_alone() {
        let tree = Tree::new("sysctl", |settings| {
            let names = ["fs.file-nr:total", "current", "max", "kernel.absent", "kernel.version", "vm.x"];
            settings.options.sysctl_include = names.map(Into::into).to_vec();
            settings.options.sysctl_include_info = vec!["kernel.version".into()];
        });
        tree.write("proc/sys/fs/file-nr", "7\t0\t9\n");
        tree.write("proc/sys/kernel/version", "a b\n");
        tree.write("proc/sys/vm/x", "-1\n");
        let text = "node_sysctl_fs_file_nr_total 7\nnode_sysctl_fs_file_nr_current 0\nnode_sysctl_fs_file_nr_max 9\n\
                    node_sysctl_vm_x -1\nnode_sysctl_info{name=\"kernel.version\",value=\"a\",index=\"0\"} 1\n\
                    node_sysctl_info{name=\"kernel.version\",value=\"b\",index=\"1\"} 1\n";
        assert_eq!(tree.scrape(), (text.into(), false));
    }
}
