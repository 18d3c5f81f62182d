//! The index by itself.

use ruma::{owned_room_id, owned_user_id};

use super::*;
use crate::words::Terms;

fn said(number: u64, text: &str) -> Message {
    Message {
        room: owned_room_id!("!a:x"),
        number,
        kind: "m.room.message".to_owned(),
        sender: owned_user_id!("@alice:x"),
        sent_ms: number * 1000,
        text: text.to_owned(),
    }
}

fn query(term: &str) -> Query {
    Query {
        terms: Terms::parse(term).unwrap(),
        rooms: vec![owned_room_id!("!a:x")],
        kinds: vec!["m.room.message".to_owned()],
        senders: None,
        order: Order::Recent,
    }
}

fn numbers(index: &Index, term: &str) -> Vec<u64> {
    let hits = index.find(&query(term), Cursor::Start, 10).unwrap().hits;
    hits.into_iter().map(|hit| hit.number).collect()
}

fn progress(followed: u64) -> Progress {
    Progress { database: 1, followed, pass: None }
}

fn index_of(texts: &[&str]) -> Index {
    let index = Index::open(&Place::Memory, 1, 0).unwrap();
    let messages = texts.iter().zip(1..).map(|(text, n)| Change::Message(said(n, text)));
    index.apply(&messages.collect::<Vec<_>>()).unwrap();
    index.commit(progress(1)).unwrap();
    index
}

#[test]
fn every_script_is_found_by_any_part_of_it_that_people_type() {
    let index = index_of(&[
        "我们明天去北京开会",             // 1
        "明日は東京タワーで会いましょう", // 2
        "내일 서버를 업데이트합니다",     // 3
        "พรุ่งนี้เราจะไปกรุงเทพ",              // 4
        "Die Größe des Café-Hauses",      // 5
        "Завтра ёлка в Москве",           // 6
        "שָׁלוֹם עולם",                      // 7
        "two messages were sent",         // 8
    ]);
    for (term, found) in [
        ("北京", vec![1]),
        ("京", vec![2, 1]),
        ("明", vec![2, 1]),
        ("会", vec![2, 1]),
        ("北京开会", vec![1]),
        ("京北", vec![]),
        ("东京", vec![]),
        ("タワー", vec![2]),
        ("ﾀﾜｰ", vec![2]),
        ("会いましょう", vec![2]),
        ("서버", vec![3]),
        ("업데이트", vec![3]),
        ("กรุงเทพ", vec![4]),
        ("พรุ่งนี้", vec![4]),
        ("grosse cafe", vec![5]),
        ("GRÖSSE", vec![5]),
        ("ЁЛКА", vec![6]),
        ("елка москве", vec![6]),
        ("שלום", vec![7]),
        ("message", vec![8]),
        ("\"message\"", vec![]),
        ("two sent", vec![8]),
        ("\"two sent\"", vec![]),
        ("\"messages were\"", vec![8]),
        ("sends", vec![]),
        ("…", vec![]),
    ] {
        assert_eq!(numbers(&index, term), found, "{term}");
    }
}

#[test]
fn pages_follow_each_other_in_both_orders() {
    let texts: Vec<String> = (0..25).map(|n| format!("word {}", "filler ".repeat(n % 7))).collect();
    let index = index_of(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    for order in [Order::Rank, Order::Recent] {
        let query = Query { order, ..query("word") };
        let whole = index.find(&query, Cursor::Start, 100).unwrap();
        assert_eq!((whole.hits.len(), whole.total), (25, 25));
        let (mut paged, mut cursor) = (Vec::new(), Cursor::Start);
        loop {
            let page = index.find(&query, cursor, 4).unwrap();
            assert_eq!(page.total, 25 - paged.len(), "{order:?}");
            let Some(last) = page.hits.last() else { break };
            cursor = match order {
                Order::Recent => Cursor::Before(last.order),
                Order::Rank => Cursor::Skip(paged.len() + page.hits.len()),
            };
            paged.extend(page.hits);
        }
        assert_eq!(paged, whole.hits, "{order:?}");
    }
}

#[test]
fn what_fits_better_comes_first_by_rank() {
    let index = index_of(&[
        "the word among a great many others that say something else",
        "word word",
        "words",
    ]);
    let hits = index.find(&Query { order: Order::Rank, ..query("word") }, Cursor::Start, 9);
    let hits: Vec<u64> = hits.unwrap().hits.iter().map(|hit| hit.number).collect();
    assert_eq!(hits.first(), Some(&2));
    assert_eq!(hits.len(), 3);
}

#[test]
fn only_the_rooms_kinds_and_senders_asked_for_are_found() {
    let index = Index::open(&Place::Memory, 1, 0).unwrap();
    let rooms: Vec<_> = (0..100).map(|n| format!("!{n}:x").try_into().unwrap()).collect();
    let mut messages: Vec<_> = (0..100).map(|n| said(n, "word")).collect();
    for (message, room) in messages.iter_mut().zip(&rooms) {
        message.room = Clone::clone(room);
    }
    messages[7].kind = "m.room.topic".to_owned();
    messages[8].sender = owned_user_id!("@bob:x");
    index.apply(&messages.into_iter().map(Change::Message).collect::<Vec<_>>()).unwrap();
    index.commit(progress(1)).unwrap();
    let found = |query: Query| index.find(&query, Cursor::Start, 100).unwrap().total;
    assert_eq!(found(Query { rooms: rooms.clone(), ..query("word") }), 99);
    assert_eq!(found(Query { rooms: rooms[5..10].to_vec(), ..query("word") }), 4);
    assert_eq!(found(Query { rooms: Vec::new(), ..query("word") }), 0);
    let bob = Some(vec![owned_user_id!("@bob:x")]);
    assert_eq!(found(Query { rooms: rooms.clone(), senders: bob, ..query("word") }), 1);
    let both = vec!["m.room.message".to_owned(), "m.room.topic".to_owned()];
    assert_eq!(found(Query { rooms, kinds: both, ..query("word") }), 100);
}

#[test]
fn what_is_deleted_is_found_no_more_and_what_is_indexed_twice_is_found_once() {
    let index = index_of(&["first word", "second word"]);
    index.apply(&[Change::Message(said(1, "first word"))]).unwrap();
    index.commit(progress(2)).unwrap();
    assert_eq!(numbers(&index, "word"), [2, 1]);
    index.apply(&[Change::NoMessage(1)]).unwrap();
    index.commit(progress(3)).unwrap();
    assert_eq!(numbers(&index, "word"), [2]);
    let member = Member {
        room: owned_room_id!("!a:x"),
        user: owned_user_id!("@bob:x"),
        name: Some("Bob".to_owned()),
        is_public: true,
    };
    index.apply(&[Change::Member(member), Change::NoMessages(owned_room_id!("!a:x"))]).unwrap();
    index.commit(progress(4)).unwrap();
    assert!(numbers(&index, "word").is_empty());
    let people = PeopleQuery { term: "bob".to_owned(), rooms: Vec::new() };
    assert_eq!(index.people(&people, 0, 9).unwrap().len(), 1, "members are no messages");
}

#[test]
fn an_index_goes_on_after_a_restart_and_begins_anew_where_it_is_of_no_use() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::Folder(folder.path().join("search"));
    let index = Index::open(&place, 1, 0).unwrap();
    index.apply(&[Change::Message(said(1, "kept"))]).unwrap();
    index.commit(progress(5)).unwrap();
    index.apply(&[Change::Message(said(2, "lost"))]).unwrap();
    drop(index);
    let index = Index::open(&place, 1, 9).unwrap();
    assert_eq!((numbers(&index, "kept"), index.progress()), (vec![1], progress(5)));
    assert!(numbers(&index, "lost").is_empty(), "it was not committed, and is indexed again");
    drop(index);
    // A database that was restored from before, and another one.
    for (database, newest) in [(1, 4), (2, 9)] {
        let index = Index::open(&place, 1, 9).unwrap();
        index.apply(&[Change::Message(said(1, "kept"))]).unwrap();
        index.commit(progress(5)).unwrap();
        drop(index);
        let index = Index::open(&place, database, newest).unwrap();
        assert_eq!((index.len(), index.progress().followed), (0, 0), "{database} {newest}");
    }
}

#[test]
fn a_damaged_index_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::Folder(folder.path().to_owned());
    let index = Index::open(&place, 1, 0).unwrap();
    index.apply(&[Change::Message(said(1, "kept"))]).unwrap();
    index.commit(progress(5)).unwrap();
    drop(index);
    let meta = folder.path().join(format!("v{}", schema::FORMAT)).join("meta.json");
    std::fs::write(meta, "{").unwrap();
    std::fs::write(folder.path().join("not ours"), "kept").unwrap();
    let index = Index::open(&place, 1, 9).unwrap();
    assert_eq!((index.len(), index.progress().followed), (0, 0));
    assert!(folder.path().join("not ours").exists());
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = Index::open(&Place::Folder(file), 1, 0).err().unwrap().to_string();
    assert!(error.contains("file/v"), "{error}");
}

#[test]
fn people_are_found_by_beginnings_of_their_names_the_best_first() {
    let index = Index::open(&Place::Memory, 1, 0).unwrap();
    let member = |user: &str, name: Option<&str>, is_public| {
        Change::Member(Member {
            room: owned_room_id!("!a:x"),
            user: format!("@{user}:x").try_into().unwrap(),
            name: name.map(ToOwned::to_owned),
            is_public,
        })
    };
    let people = [
        member("carol", Some("Robert 'Bob' Smith"), true),
        member("bobby", None, true),
        member("bob", None, true),
        member("u1", Some("王小明"), true),
        member("u2", Some("Søren Ærø"), true),
        member("u3", Some("김철수"), false),
        member("u4", Some("山田 太郎"), true),
        member("u5", Some("สมชาย"), true),
    ];
    index.apply(&people).unwrap();
    index.commit(progress(1)).unwrap();
    let found = |term: &str, rooms: &[&str]| -> Vec<String> {
        let rooms = rooms.iter().map(|room| (*room).try_into().unwrap()).collect();
        let query = PeopleQuery { term: term.to_owned(), rooms };
        let people = index.people(&query, 0, 10).unwrap().into_iter();
        people.map(|person| person.user.localpart().to_owned()).collect()
    };
    for (term, users) in [
        ("bob", vec!["bob", "bobby", "carol"]),
        ("BOBB", vec!["bobby"]),
        ("smi rob", vec!["carol"]),
        ("mith", vec![]),
        ("@bob", vec!["bob", "bobby"]),
        ("@bob:x", vec!["bob"]),
        ("小明", vec!["u1"]),
        ("王", vec!["u1"]),
        ("明", vec!["u1"]),
        ("soren aero", vec!["u2"]),
        ("太郎", vec!["u4"]),
        ("山田 太郎", vec!["u4"]),
        ("สม", vec!["u5"]),
        ("철수", vec![]),
        ("…", vec![]),
    ] {
        assert_eq!(found(term, &[]), users, "{term}");
    }
    assert_eq!(found("철수", &["!a:x"]), ["u3"], "to who is in the room");
    assert!(found("철수", &["!b:x"]).is_empty());
}
