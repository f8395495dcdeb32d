{
 "query": {
  "pages": [
   {
    "title": "周一诺",
    "extract": "周一诺是为演示虚构的歌手。",
    "revisions": [
     {
      "slots": {
       "main": {
        "content": "{{Infobox musical artist\n| name = 周一诺\n| birth_date = {{birth date|1990|3|8}}\n| birth_place = [[云州市|云州]]\n| label = {{hlist|[[甲]]|[[乙]]}}\n| 经纪公司 = 河西唱片<ref>示例</ref>\n}}\n'''周一诺'''是为演示虚构的歌手。"
       }
      }
     }
    ]
   }
  ]
 }
}
